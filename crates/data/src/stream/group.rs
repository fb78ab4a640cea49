//! Consumer groups: what was delivered to whom and not acknowledged yet.
//!
//! A group knows each pending entry once, with its consumer as a number; a consumer knows the ids
//! of its own. Both are ordered by id. The numbers of consumers that are gone are used again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerState {
    number: u32,
    pub seen_ms: i64,
    pub active_ms: Option<i64>,
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

    /// Removes a consumer and what is pending with it; answers how much that was.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let number = self.numbers.remove(name)?;
        let gone = self.consumers[number as usize].take().expect("what is named is there");
        for id in &gone.pending {
            self.pending.remove(id);
        }
        Some(gone.pending.len())
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

    /// What a consumer is now, to be given to `restore_consumers`.
    pub fn consumer_state(&self, name: &[u8]) -> Option<ConsumerState> {
        let number = *self.numbers.get(name)?;
        let Consumer { seen_ms, active_ms, .. } = *self.numbered(number);
        Some(ConsumerState { number, seen_ms, active_ms })
    }

    /// Makes these consumers what they were. What is pending with those that come or go must all
    /// be restored afterwards, with `restore_pending`.
    pub fn restore_consumers(&mut self, were: &[(&[u8], Option<ConsumerState>)]) {
        for (name, was) in were {
            if let Some(&number) = self.numbers.get(*name)
                && was.is_none_or(|was| was.number != number)
            {
                self.numbers.remove(*name);
                self.consumers[number as usize] = None;
            }
        }
        for (name, was) in were {
            match (self.consumer_mut(name), was) {
                (Some(consumer), Some(was)) => {
                    (consumer.seen_ms, consumer.active_ms) = (was.seen_ms, was.active_ms);
                }
                (None, Some(was)) => self.put_consumer(name, *was),
                (_, None) => {}
            }
        }
    }

    /// Makes an entry pending as it was, or not.
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
