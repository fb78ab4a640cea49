//! Makes a session that fails as short as it can be, and still fail.

use std::time::{Duration, Instant};

use super::pair::{Difference, Pair, Setup, Step, Wrap};
use super::rules::Rules;

/// After so long the shortest found so far will do.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Shrunk {
    pub setup: Setup,
    pub steps: Vec<Step>,
    pub difference: Difference,
}

struct Shrinker<'a> {
    pair: &'a mut Pair,
    rules: &'a Rules,
    best: Shrunk,
    deadline: Instant,
}

pub fn shrink(
    pair: &mut Pair,
    rules: &Rules,
    setup: Setup,
    steps: Vec<Step>,
    difference: Difference,
) -> Result<Shrunk, String> {
    let best = Shrunk { setup, steps, difference };
    let deadline = Instant::now() + PATIENCE;
    let mut shrinker = Shrinker { pair, rules, best, deadline };
    shrinker.cut();
    shrinker.steps()?;
    shrinker.commands()?;
    shrinker.unwrap()?;
    shrinker.steps()?;
    shrinker.arguments()?;
    shrinker.setup()?;
    Ok(shrinker.best)
}

impl Shrinker<'_> {
    /// What comes after the step that failed.
    fn cut(&mut self) {
        if let Some(step) = self.best.difference.step {
            self.best.steps.truncate(step + 1);
        }
    }

    /// Keeps these if the servers still differ.
    fn accept(&mut self, setup: Setup, steps: Vec<Step>) -> Result<bool, String> {
        let mut commands = steps.iter().flat_map(|step| &step.commands);
        let is_skipped = commands.any(|command| self.rules.skip(&command.name, &command.args));
        if is_skipped || Instant::now() > self.deadline {
            return Ok(false);
        }
        match self.pair.run(self.rules, setup, &steps, |_, _| {})? {
            Some(difference) => {
                self.best = Shrunk { setup, steps, difference };
                self.cut();
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Leaves out steps, half of them at first, then ever fewer at a time.
    fn steps(&mut self) -> Result<(), String> {
        let mut width = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut end = self.best.steps.len();
            while end > 0 {
                let start = end.saturating_sub(width);
                let mut steps = self.best.steps.clone();
                steps.drain(start..end);
                self.accept(self.best.setup, steps)?;
                end = start.min(self.best.steps.len());
            }
            if width == 1 {
                return Ok(());
            }
            width = width.div_ceil(2);
        }
    }

    /// Leaves out commands of transactions and scripts.
    fn commands(&mut self) -> Result<(), String> {
        let mut step = 0;
        while step < self.best.steps.len() {
            let mut at = 0;
            while step < self.best.steps.len() && at < self.best.steps[step].commands.len() {
                let mut steps = self.best.steps.clone();
                steps[step].commands.remove(at);
                let is_last = steps[step].commands.is_empty();
                if is_last || !self.accept(self.best.setup, steps)? {
                    at += 1;
                }
            }
            step += 1;
        }
        Ok(())
    }

    /// Sends commands by themselves that were in a transaction or a script.
    fn unwrap(&mut self) -> Result<(), String> {
        let mut at = 0;
        while at < self.best.steps.len() {
            let step = &self.best.steps[at];
            if step.wrap != Wrap::Plain && step.commands.iter().all(|command| !command.blocks) {
                let alone = step.commands.iter().cloned();
                let alone: Vec<Step> =
                    alone.map(|c| Step { wrap: Wrap::Plain, commands: vec![c] }).collect();
                let mut steps = self.best.steps.clone();
                steps.splice(at..=at, alone);
                self.accept(self.best.setup, steps)?;
            }
            at += 1;
        }
        Ok(())
    }

    /// Leaves out arguments, and puts short ones for long ones.
    fn arguments(&mut self) -> Result<(), String> {
        let mut step = 0;
        while step < self.best.steps.len() {
            let mut command = 0;
            while step < self.best.steps.len() && command < self.best.steps[step].commands.len() {
                let count = self.best.steps[step].commands[command].args.len();
                for arg in (1..count).rev() {
                    self.argument(step, command, arg)?;
                }
                command += 1;
            }
            step += 1;
        }
        Ok(())
    }

    fn argument(&mut self, step: usize, command: usize, arg: usize) -> Result<(), String> {
        let present = |steps: &[Step]| {
            let args = &steps.get(step)?.commands.get(command)?.args;
            args.get(arg).cloned()
        };
        if present(&self.best.steps).is_none() {
            return Ok(());
        }
        let mut steps = self.best.steps.clone();
        steps[step].commands[command].args.remove(arg);
        if self.accept(self.best.setup, steps)? {
            return Ok(());
        }
        for shorter in ["", "1", "x"] {
            let Some(now) = present(&self.best.steps) else { return Ok(()) };
            // Times that are far must not become near.
            let is_time = now.len() > 6 && now.iter().all(u8::is_ascii_digit);
            if now.len() <= shorter.len().max(1) || is_time {
                return Ok(());
            }
            let mut steps = self.best.steps.clone();
            steps[step].commands[command].args[arg] = shorter.into();
            self.accept(self.best.setup, steps)?;
        }
        Ok(())
    }

    fn setup(&mut self) -> Result<(), String> {
        for setup in [
            Setup { resp3: false, ..self.best.setup },
            Setup { tiny: false, ..self.best.setup },
            Setup::default(),
        ] {
            if setup != self.best.setup {
                let steps = self.best.steps.clone();
                self.accept(setup, steps)?;
            }
        }
        Ok(())
    }
}
