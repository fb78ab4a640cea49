//! Consumer groups: what was delivered to whom and not acknowledged yet.
//!
//! A group knows each pending entry once, with its consumer as a number; a consumer knows the ids
//! of its own. Both are ordered by id. The numbers of consumers that are gone are used again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};

use crate::stream::Id;

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Unix ms.
    pub delivered_ms: i64,
    pub deliveries: u64,
    consumer: u32,
}

#[derive(Clone, Debug)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last asked for entries, Unix ms.
    pub seen_ms: i64,
    /// When it last got some.
    pub active_ms: Option<i64>,
    pending: BTreeSet<Id>,
}

impl Consumer {
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Ids of what is pending with it, ascending.
    pub fn pending(&self, range: impl RangeBounds<Id>) -> impl Iterator<Item = Id> + '_ {
        self.pending.range(range).copied()
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }
}

/// What a consumer was, beside what is pending with it.
#[derive(Clone, Copy, Debug)]
struct ConsumerState {
    number: u32,
    seen_ms: i64,
    active_ms: Option<i64>,
}

/// A consumer that was removed, and what was pending with it.
#[derive(Debug)]
pub struct RemovedConsumer {
    state: ConsumerState,
    pending: Vec<(Id, Pending)>,
}

impl RemovedConsumer {
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<RemovedConsumer>() + self.pending.capacity() * size_of::<(Id, Pending)>()
    }
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last entry that was delivered.
    pub last_id: Id,
    /// How many entries were read, those included that are gone; `None` where that is not known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<Id, Pending>,
    numbers: BTreeMap<Box<[u8]>, u32>,
    consumers: Vec<Option<Consumer>>,
}

impl Group {
    pub fn new(last_id: Id, entries_read: Option<u64>) -> Group {
        Group {
            last_id,
            entries_read,
            pending: BTreeMap::new(),
            numbers: BTreeMap::new(),
            consumers: Vec::new(),
        }
    }

    /// Consumers in the order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.numbers.values().map(|&number| self.numbered(number))
    }

    /// The first consumer whose name is behind this one, or the first of all.
    pub fn consumer_behind(&self, name: Option<&[u8]>) -> Option<&Consumer> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.numbers.range::<[u8], _>((from, Bound::Unbounded));
        behind.next().map(|(_, &number)| self.numbered(number))
    }

    fn numbered(&self, number: u32) -> &Consumer {
        self.consumers[number as usize].as_ref().expect("what is named is there")
    }

    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.numbers.get(name).map(|&number| self.numbered(number))
    }

    /// To set when it was seen.
    pub fn consumer_mut(&mut self, name: &[u8]) -> Option<&mut Consumer> {
        let number = *self.numbers.get(name)?;
        self.consumers[number as usize].as_mut()
    }

    /// Who has a pending entry.
    pub fn owner(&self, pending: &Pending) -> &Consumer {
        self.numbered(pending.consumer)
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// What is pending, by ascending id.
    pub fn pending(
        &self,
        range: impl RangeBounds<Id>,
    ) -> impl DoubleEndedIterator<Item = (Id, &Pending)> {
        self.pending.range(range).map(|(id, pending)| (*id, pending))
    }

    pub fn get(&self, id: Id) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// Adds a consumer; false if there is one of that name.
    pub fn add_consumer(&mut self, name: &[u8], seen_ms: i64, active_ms: Option<i64>) -> bool {
        if self.numbers.contains_key(name) {
            return false;
        }
        let free = match self.numbers.len() == self.consumers.len() {
            true => None,
            false => self.consumers.iter().position(Option::is_none),
        };
        let number = free.unwrap_or(self.consumers.len()) as u32;
        self.put_consumer(name, ConsumerState { number, seen_ms, active_ms });
        true
    }

    fn put_consumer(&mut self, name: &[u8], state: ConsumerState) {
        let ConsumerState { number, seen_ms, active_ms } = state;
        let at = number as usize;
        if at >= self.consumers.len() {
            self.consumers.resize_with(at + 1, || None);
        }
        self.consumers[at] =
            Some(Consumer { name: name.into(), seen_ms, active_ms, pending: BTreeSet::new() });
        self.numbers.insert(name.into(), number);
    }

    /// Removes a consumer and what is pending with it.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<RemovedConsumer> {
        let number = self.numbers.remove(name)?;
        let gone = self.consumers[number as usize].take().expect("what is named is there");
        let pending = gone.pending.iter().filter_map(|id| self.pending.remove_entry(id)).collect();
        let Consumer { seen_ms, active_ms, .. } = gone;
        Some(RemovedConsumer { state: ConsumerState { number, seen_ms, active_ms }, pending })
    }

    /// Puts a consumer back that was removed last.
    pub fn restore_consumer(&mut self, name: &[u8], removed: RemovedConsumer) {
        let number = removed.state.number;
        self.put_consumer(name, removed.state);
        let owner = self.consumers[number as usize].as_mut().expect("just put there");
        owner.pending.extend(removed.pending.iter().map(|(id, _)| *id));
        self.pending.extend(removed.pending);
    }

    /// Makes an entry pending with a consumer, which must be there, whoever had it before.
    pub fn set_pending(&mut self, id: Id, consumer: &[u8], delivered_ms: i64, deliveries: u64) {
        let number = self.numbers[consumer];
        let pending = Pending { delivered_ms, deliveries, consumer: number };
        if let Some(old) = self.pending.insert(id, pending) {
            if old.consumer == number {
                return;
            }
            self.forget(old.consumer, id);
        }
        if let Some(owner) = &mut self.consumers[number as usize] {
            owner.pending.insert(id);
        }
    }

    fn forget(&mut self, consumer: u32, id: Id) {
        if let Some(Some(owner)) = self.consumers.get_mut(consumer as usize) {
            owner.pending.remove(&id);
        }
    }

    /// Ends that an entry is pending; false if it was not.
    pub fn remove_pending(&mut self, id: Id) -> bool {
        let Some(old) = self.pending.remove(&id) else { return false };
        self.forget(old.consumer, id);
        true
    }

    /// Makes an entry pending as it was, or not. Consumers are those of then.
    pub fn restore_pending(&mut self, id: Id, was: Option<Pending>) {
        self.remove_pending(id);
        if let Some(was) = was {
            self.pending.insert(id, was);
            if let Some(Some(owner)) = self.consumers.get_mut(was.consumer as usize) {
                owner.pending.insert(id);
            }
        }
    }

    /// Room that it takes beside the stream's, about.
    pub fn memory_bytes(&self) -> usize {
        // Nodes of a B-tree are two thirds full.
        const PENDING_BYTES: usize =
            (size_of::<Id>() + size_of::<Pending>() + size_of::<Id>()) * 3 / 2;
        let names: usize = self.numbers.keys().map(|name| 2 * crate::class_size(name.len())).sum();
        let named = self.numbers.len() * (size_of::<Box<[u8]>>() + size_of::<u32>()) * 3 / 2;
        let consumers = self.consumers.capacity() * size_of::<Option<Consumer>>();
        self.pending.len() * PENDING_BYTES + names + named + consumers
    }
}
