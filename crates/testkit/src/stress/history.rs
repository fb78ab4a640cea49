//! Histories of concurrent clients, and whether some order of their operations explains them.
//!
//! The search of Wing and Gong with Lowe's memory of what was tried: an operation takes effect at
//! one moment between its invocation and its answer, and those of one client in their order. It
//! knows nothing of commands; what an operation does to the state is the caller's model. Windows
//! must be short: the search is exponential in the number of clients.
//!
//! Crates that do this keep no state of a whole store, or bring a web server along.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Instant;

/// One operation as its client saw it.
#[derive(Clone, Debug)]
pub struct Event<O, A> {
    pub invoked: Instant,
    pub answered: Instant,
    pub operation: O,
    pub answer: A,
}

/// What every client did, in its order.
pub type History<O, A> = Vec<Vec<Event<O, A>>>;

/// An order that explains all answers, each operation by its client and its place there; `None`
/// when there is none. `apply` says what state an operation leaves if it answers so, or that it
/// cannot answer so.
pub fn explain<S: Clone + Eq + Hash, O, A>(
    begin: &S,
    history: &History<O, A>,
    apply: impl Fn(&S, &O, &A) -> Option<S>,
) -> Option<Vec<(usize, usize)>> {
    let mut tried: HashSet<(Vec<usize>, S)> = HashSet::new();
    let mut path: Vec<Step<S>> = vec![Step::at(vec![0; history.len()], begin.clone())];
    while let Some(step) = path.last_mut() {
        if (0..history.len()).all(|client| step.places[client] == history[client].len()) {
            return Some(path[1..].iter().map(|step| step.taken).collect());
        }
        // Nothing can take effect after something that has already been answered.
        let heads = || history.iter().zip(&step.places);
        let horizon =
            heads().filter_map(|(events, place)| Some(events.get(*place)?.answered)).min();
        let client = step.next;
        if client == history.len() {
            path.pop();
            continue;
        }
        step.next += 1;
        let Some(event) = history[client].get(step.places[client]) else { continue };
        if horizon.is_some_and(|horizon| event.invoked > horizon) {
            continue;
        }
        let Some(state) = apply(&step.state, &event.operation, &event.answer) else { continue };
        let mut places = step.places.clone();
        places[client] += 1;
        if tried.insert((places.clone(), state.clone())) {
            let taken = (client, places[client] - 1);
            path.push(Step { taken, ..Step::at(places, state) });
        }
    }
    None
}

/// The state after some operations, and which client's operation is tried next.
struct Step<S> {
    places: Vec<usize>,
    state: S,
    next: usize,
    taken: (usize, usize),
}

impl<S> Step<S> {
    fn at(places: Vec<usize>, state: S) -> Step<S> {
        Step { places, state, next: 0, taken: (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A register: `Write` answers nothing, `Read` what it holds, `Add` what it held before.
    #[derive(Clone, Copy, Debug)]
    enum Register {
        Write(i32),
        Read,
        Add,
    }

    fn apply(state: &i32, operation: &Register, answer: &i32) -> Option<i32> {
        let (after, wanted) = match operation {
            Register::Write(value) => (*value, 0),
            Register::Read => (*state, *state),
            Register::Add => (*state + 1, *state),
        };
        (wanted == *answer).then_some(after)
    }

    fn explained(clients: &[&[(u64, u64, Register, i32)]]) -> Option<Vec<(usize, usize)>> {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let history = clients
            .iter()
            .map(|events| {
                let event =
                    |&(invoked, answered, operation, answer): &(u64, u64, Register, i32)| Event {
                        invoked: at(invoked),
                        answered: at(answered),
                        operation,
                        answer,
                    };
                events.iter().map(event).collect()
            })
            .collect();
        explain(&0, &history, apply)
    }

    use Register::{Add, Read, Write};

    #[test]
    fn overlapping_operations_take_any_order() {
        let order = explained(&[&[(0, 10, Write(1), 0)], &[(1, 2, Read, 0), (3, 4, Read, 1)]]);
        assert_eq!(order, Some(vec![(1, 0), (0, 0), (1, 1)]));
        assert!(explained(&[&[(0, 10, Add, 1)], &[(5, 20, Add, 0)]]).is_some());
        assert!(explained(&[&[], &[(0, 1, Read, 0)]]).is_some());
        assert!(explained(&[]).is_some());
    }

    #[test]
    fn stale_reads_are_refused() {
        assert!(explained(&[&[(0, 1, Write(1), 0)], &[(2, 3, Read, 0)]]).is_none());
        // Seen once, a value stays.
        let history =
            &[&[(0, 10, Write(1), 0)][..], &[(1, 2, Read, 1), (3, 4, Read, 0)], &[(5, 6, Read, 1)]];
        assert!(explained(history).is_none());
    }

    #[test]
    fn lost_updates_are_refused() {
        assert!(explained(&[&[(0, 10, Add, 0)], &[(0, 10, Add, 0)]]).is_none());
        let history: Vec<[(u64, u64, Register, i32); 1]> =
            (0..6).map(|client| [(0, 10, Add, if client == 3 { 2 } else { client })]).collect();
        let clients: Vec<&[_]> = history.iter().map(|events| &events[..]).collect();
        assert!(explained(&clients).is_none());
    }

    #[test]
    fn operations_of_one_client_keep_their_order() {
        // As in a pipeline: both were sent before the first was answered.
        assert!(explained(&[&[(0, 9, Write(1), 0), (0, 9, Read, 1)]]).is_some());
        assert!(explained(&[&[(0, 9, Write(1), 0), (0, 9, Read, 0)]]).is_none());
    }
}
