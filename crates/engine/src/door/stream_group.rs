//! Changes of the consumer groups of a stream.
//!
//! Nobody waits for what becomes of a group, but for its end: clients that read with it are told.

use data::Stream;
use data::stream::{Group, Id};

use crate::change::Change;
use crate::door::Mut;
use crate::undo::{Delta, GroupDelta, Small, Was};

impl Mut<'_, '_, Stream> {
    /// Adds a group; false if there is one of that name.
    pub fn add_group(&mut self, name: &[u8], last_id: Id, entries_read: Option<u64>) -> bool {
        if self.group(name).is_some() {
            return false;
        }
        self.note_group(name, |_| Was::Absent);
        self.value().put_group(name, Group::new(last_id, entries_read));
        self.did_quietly(Change::AddGroup { group: name, last_id, entries_read });
        true
    }

    /// Removes a group and all that is pending in it; false if there is none.
    pub fn remove_group(&mut self, name: &[u8]) -> bool {
        let notes = self.inverse().is_some();
        let Some(gone) = self.value().remove_group(name) else { return false };
        if notes && let Some(mut log) = self.log() {
            let was = Was::Removed(gone);
            log.note(Delta::Group(Box::new(GroupDelta { group: Small::from_slice(name), was })));
        }
        self.did(Change::RemoveGroup { group: name });
        true
    }

    /// Sets how far a group has come, which must be there.
    pub fn set_group(&mut self, name: &[u8], last_id: Id, entries_read: Option<u64>) {
        self.note_group(name, |group| {
            let group = group.expect("the caller has found it");
            Was::At { last_id: group.last_id, entries_read: group.entries_read }
        });
        let group = self.found(name);
        (group.last_id, group.entries_read) = (last_id, entries_read);
        self.did_quietly(Change::SetGroup { group: name, last_id, entries_read });
    }

    /// Adds a consumer to a group, which must be there; false if it has one of that name.
    pub fn add_consumer(&mut self, group: &[u8], name: &[u8], seen_ms: i64) -> bool {
        if self.group(group).is_none_or(|group| group.consumer(name).is_some()) {
            return false;
        }
        self.note_group(group, |_| Was::WithoutConsumer(Small::from_slice(name)));
        self.found(group).add_consumer(name, seen_ms, None);
        self.did_quietly(Change::AddConsumer { group, consumer: name });
        true
    }

    /// Removes a consumer; answers how many entries were pending with it.
    pub fn remove_consumer(&mut self, group: &[u8], name: &[u8]) -> Option<usize> {
        let notes = self.inverse().is_some();
        let removed = self.value().group_mut(group)?.remove_consumer(name)?;
        let count = removed.pending_count();
        if notes && let Some(mut log) = self.log() {
            let was = Was::WithConsumer { name: Small::from_slice(name), removed };
            log.note(Delta::Group(Box::new(GroupDelta { group: Small::from_slice(group), was })));
        }
        self.did_quietly(Change::RemoveConsumer { group, consumer: name });
        Some(count)
    }

    /// Notes that a consumer asked for entries, and whether it got some. That is no change that
    /// anybody would have to learn of.
    pub fn see_consumer(&mut self, group: &[u8], name: &[u8], now_ms: i64, is_active: bool) {
        let Some(consumer) = self.group(group).and_then(|group| group.consumer(name)) else {
            return;
        };
        let (seen_ms, active_ms) = (consumer.seen_ms, consumer.active_ms);
        if seen_ms == now_ms && (!is_active || active_ms == Some(now_ms)) {
            return;
        }
        self.note_group(group, |_| Was::Seen { name: Small::from_slice(name), seen_ms, active_ms });
        if let Some(consumer) = self.found(group).consumer_mut(name) {
            consumer.seen_ms = now_ms;
            consumer.active_ms = if is_active { Some(now_ms) } else { active_ms };
        }
    }

    /// Makes an entry pending with a consumer, which must be there, whoever had it before.
    pub fn deliver(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        id: Id,
        delivered_ms: i64,
        deliveries: u64,
    ) {
        self.note_pending(group, id);
        self.found(group).set_pending(id, consumer, delivered_ms, deliveries);
        self.did_quietly(Change::Deliver { group, consumer, id, delivered_ms, deliveries });
    }

    /// Ends that an entry is pending; false if it was not.
    pub fn acknowledge(&mut self, group: &[u8], id: Id) -> bool {
        if self.group(group).and_then(|group| group.get(id)).is_none() {
            return false;
        }
        self.note_pending(group, id);
        self.found(group).remove_pending(id);
        self.did_quietly(Change::Acknowledge { group, id });
        true
    }

    /// Ends that an entry is pending, in all groups.
    pub fn acknowledge_everywhere(&mut self, id: Id) {
        let holders = |stream: &Stream| {
            let groups = stream.groups().filter(|(_, group)| group.get(id).is_some());
            groups.map(|(name, _)| Small::from_slice(name)).collect::<Vec<_>>()
        };
        for group in holders(self) {
            self.acknowledge(&group, id);
        }
    }

    fn found(&mut self, group: &[u8]) -> &mut Group {
        self.value().group_mut(group).expect("the caller has found it")
    }

    fn note_pending(&mut self, group: &[u8], id: Id) {
        self.note_group(group, |group| {
            let old = group.and_then(|group| group.get(id)).copied();
            Was::Pending { id, old }
        });
    }

    /// Notes what a group is; the closure gets it as it still is.
    fn note_group(&mut self, name: &[u8], was: impl FnOnce(Option<&Group>) -> Was) {
        if let Some((mut log, stream)) = self.inverse() {
            let was = was(stream.group(name));
            log.note(Delta::Group(Box::new(GroupDelta { group: Small::from_slice(name), was })));
        }
    }
}
