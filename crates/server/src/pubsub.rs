//! Channels, patterns and shard channels, and who listens to them.
//!
//! Thread safety: one lock over the three maps. It comes after all keyspace locks and before the
//! mailboxes in the lock order; deliveries are put into the mailboxes under it, so that all
//! subscribers of a channel see its messages in one order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use data::glob;
use hashbrown::HashMap;
use parking_lot::Mutex;
use resp::{Protocol, Reply};

use crate::client::ClientInfo;
use crate::mailbox::{Address, Mail, Mailbox};

/// The three kinds of subscriptions, with the words their messages carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

type Listeners = HashMap<Box<[u8]>, Vec<Arc<ClientInfo>>>;

#[derive(Default)]
struct Maps {
    channels: Listeners,
    patterns: Listeners,
    shard_channels: Listeners,
}

#[derive(Default)]
pub struct PubSub(Mutex<Maps>);

impl Maps {
    fn of(&mut self, kind: Kind) -> &mut Listeners {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }
}

/// One message in the two protocols, each encoded when first asked for.
struct Message<'m> {
    parts: &'m [&'m [u8]],
    encoded: [Option<Arc<[u8]>>; 2],
}

impl Message<'_> {
    fn bytes(&mut self, resp3: bool) -> Arc<[u8]> {
        self.encoded[usize::from(resp3)]
            .get_or_insert_with(|| {
                let protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
                let mut out = Vec::new();
                let mut reply = Reply::new(&mut out, protocol);
                reply.push(self.parts.len());
                self.parts.iter().for_each(|part| reply.bulk(part));
                out.into()
            })
            .clone()
    }

    fn send(&mut self, to: &[Arc<ClientInfo>], mailboxes: &[Mailbox]) -> usize {
        for info in to {
            let bytes = self.bytes(info.resp.load(Ordering::Relaxed) == 3);
            let address = Address { token: info.token, client: info.id };
            mailboxes[info.worker].send(Mail::Push(address, bytes));
        }
        to.len()
    }
}

impl PubSub {
    pub fn subscribe(&self, kind: Kind, name: &[u8], info: &Arc<ClientInfo>) {
        self.0.lock().of(kind).entry_ref(name).or_default().push(info.clone());
    }

    pub fn unsubscribe(&self, kind: Kind, name: &[u8], id: u64) {
        let mut maps = self.0.lock();
        let listeners = maps.of(kind);
        if let Some(list) = listeners.get_mut(name) {
            list.retain(|info| info.id != id);
            if list.is_empty() {
                listeners.remove(name);
            }
        }
    }

    /// Those who listen to something that `is_wanted` says yes to; the flag tells patterns.
    pub fn listeners_where(
        &self,
        is_wanted: impl Fn(&ClientInfo, &[u8], bool) -> bool,
    ) -> Vec<Arc<ClientInfo>> {
        let mut maps = self.0.lock();
        let mut found: Vec<Arc<ClientInfo>> = Vec::new();
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for (name, list) in maps.of(kind).iter() {
                let wanted =
                    list.iter().filter(|info| is_wanted(info, name, kind == Kind::Pattern));
                found.extend(wanted.cloned());
            }
        }
        found.sort_by_key(|info| info.id);
        found.dedup_by_key(|info| info.id);
        found
    }

    /// Delivers a message; answers how many got it. O(subscribers + patterns).
    pub fn publish(
        &self,
        shard: bool,
        channel: &[u8],
        message: &[u8],
        mailboxes: &[Mailbox],
    ) -> usize {
        let maps = self.0.lock();
        let (word, listeners): (&[u8], _) =
            if shard { (b"smessage", &maps.shard_channels) } else { (b"message", &maps.channels) };
        let mut receivers = 0;
        if let Some(list) = listeners.get(channel) {
            let parts = [word, channel, message];
            receivers += Message { parts: &parts, encoded: [None, None] }.send(list, mailboxes);
        }
        if !shard {
            for (pattern, list) in &maps.patterns {
                if glob::matches(pattern, channel, false) {
                    let parts = [&b"pmessage"[..], pattern, channel, message];
                    receivers +=
                        Message { parts: &parts, encoded: [None, None] }.send(list, mailboxes);
                }
            }
        }
        receivers
    }

    /// How many would get a message now.
    pub fn receivers(&self, shard: bool, channel: &[u8]) -> usize {
        let maps = self.0.lock();
        let listeners = if shard { &maps.shard_channels } else { &maps.channels };
        let direct = listeners.get(channel).map_or(0, Vec::len);
        if shard {
            return direct;
        }
        let by_pattern = maps.patterns.iter().filter(|(p, _)| glob::matches(p, channel, false));
        direct + by_pattern.map(|(_, list)| list.len()).sum::<usize>()
    }

    /// Names with listeners, optionally only those that match a pattern.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let mut maps = self.0.lock();
        let listeners = maps.of(kind);
        let wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches(p, name, false));
        listeners.keys().filter(|name| wanted(name)).cloned().collect()
    }

    pub fn listeners(&self, kind: Kind, name: &[u8]) -> usize {
        self.0.lock().of(kind).get(name).map_or(0, Vec::len)
    }

    /// Names of this kind that have listeners.
    pub fn count(&self, kind: Kind) -> usize {
        self.0.lock().of(kind).len()
    }
}
