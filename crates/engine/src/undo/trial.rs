//! Trials: stretches of a transaction whose changes are looked at and then undone, whatever comes
//! of them (a dry run of a script).

use super::Recorder;
use crate::change::Records;
use crate::txn::Txn;

/// A trial that runs; to be given to `end_trial`.
pub struct Trial {
    /// What was recorded before. The trial has a log of its own, and once that has put everything
    /// back, this one fits again.
    outer: Option<Box<Recorder>>,
    /// Where the changes begin in the change log.
    mark: usize,
}

impl Txn<'_> {
    /// From here on changes are recorded and logged, apart from those before.
    pub fn start_trial(&mut self) -> Trial {
        let outer = self.undo.take();
        let mark = self.start_logging();
        self.record();
        Trial { outer, mark }
    }

    /// The changes since the trial began.
    pub fn tried(&self, trial: &Trial) -> Records<'_> {
        let bytes = self.changes.as_ref().map_or(&b""[..], |changes| changes.as_bytes());
        Records::new(&bytes[trial.mark..])
    }

    /// Puts everything back as it was when the trial began.
    pub fn end_trial(&mut self, trial: Trial) {
        self.roll_back();
        self.undo = trial.outer;
        self.stop_logging();
    }
}
