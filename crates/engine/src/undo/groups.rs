//! What undoes the changes of consumer groups: the inverse of each, undone backwards.

use data::Stream;
use data::stream::{Group, Id, Pending, RemovedConsumer};

use crate::undo::Small;

/// The inverse of one change of a consumer group.
pub(crate) struct GroupDelta {
    pub group: Small,
    pub was: Was,
}

pub(crate) enum Was {
    /// There was no such group.
    Absent,
    /// The group itself, which was removed.
    Removed(Group),
    /// It had come so far.
    At { last_id: Id, entries_read: Option<u64> },
    /// It had no such consumer.
    WithoutConsumer(Small),
    /// It had this consumer.
    WithConsumer { name: Small, removed: RemovedConsumer },
    /// The consumer was seen, and active, then.
    Seen { name: Small, seen_ms: i64, active_ms: Option<i64> },
    /// The entry was pending, or was not.
    Pending { id: Id, old: Option<Pending> },
}

impl GroupDelta {
    pub fn memory_bytes(&self) -> usize {
        let spilled = |small: &Small| if small.spilled() { small.capacity() } else { 0 };
        let owned = match &self.was {
            // Pending entries were there before; what holds them is moved.
            Was::Absent | Was::Removed(_) | Was::At { .. } | Was::Pending { .. } => 0,
            Was::WithoutConsumer(name) | Was::Seen { name, .. } => spilled(name),
            Was::WithConsumer { name, removed } => spilled(name) + removed.memory_bytes(),
        };
        size_of::<GroupDelta>() + spilled(&self.group) + owned
    }

    pub fn undo(self, stream: &mut Stream) {
        let name = &self.group;
        match self.was {
            Was::Absent => {
                stream.remove_group(name);
                return;
            }
            Was::Removed(group) => {
                stream.put_group(name, group);
                return;
            }
            _ => {}
        }
        let group = stream.group_mut(name).expect("it is there as it was then");
        match self.was {
            Was::Absent | Was::Removed(_) => unreachable!("seen above"),
            Was::At { last_id, entries_read } => {
                (group.last_id, group.entries_read) = (last_id, entries_read);
            }
            Was::WithoutConsumer(name) => {
                group.remove_consumer(&name);
            }
            Was::WithConsumer { name, removed } => group.restore_consumer(&name, removed),
            Was::Seen { name, seen_ms, active_ms } => {
                let consumer = group.consumer_mut(&name).expect("it is there as it was then");
                (consumer.seen_ms, consumer.active_ms) = (seen_ms, active_ms);
            }
            Was::Pending { id, old } => group.restore_pending(id, old),
        }
    }
}
