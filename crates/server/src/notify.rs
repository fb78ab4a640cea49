//! What the door has noted goes out: keyspace notifications to subscribers, and invalidations to
//! clients with a cache (`tracking.rs`).
//!
//! Called by the engine under the locks of a transaction, so that subscribers hear of a key's changes
//! in their order; it takes the lock of the subscriptions and those of mailboxes, which come later in
//! the lock order.

use std::io::Write as _;
use std::sync::Arc;

use engine::{Herald, Notice, Notices};

use crate::mailbox::Mailbox;
use crate::pubsub::PubSub;
use crate::tracking::Tracking;

/// Tells of everything.
pub struct Crier {
    pub pubsub: Arc<PubSub>,
    pub tracking: Arc<Tracking>,
    pub mailboxes: Arc<[Mailbox]>,
}

impl Herald for Crier {
    fn tell(&self, notices: &Notices, client: u64) -> Vec<u8> {
        self.publish(notices);
        if notices.is_tracked { self.tracking.tell(notices, client) } else { Vec::new() }
    }
}

impl Crier {
    fn publish(&self, notices: &Notices) {
        let classes = notices.classes;
        let mut channel = Vec::new();
        for notice in notices.iter() {
            let (db, key, event) = match notice {
                Notice::Event { db, key, event, .. } => (db, key, event),
                Notice::Message { is_sharded, channel, message } => {
                    self.pubsub.publish(is_sharded, channel, message, &self.mailboxes);
                    continue;
                }
                Notice::Read { .. } | Notice::Flush => continue,
            };
            if !classes.contains(event.class) {
                continue;
            }
            let mut publish = |kind: &str, name: &[u8], message: &[u8]| {
                channel.clear();
                // Writing to memory cannot fail.
                let _ = write!(channel, "__{kind}@{db}__:");
                channel.extend_from_slice(name);
                self.pubsub.publish(false, &channel, message, &self.mailboxes);
            };
            if classes.tells_by_key() {
                publish("keyspace", key, event.name.as_bytes());
            }
            if classes.tells_by_event() {
                publish("keyevent", event.name.as_bytes(), key);
            }
        }
    }
}
