//! Gates, waiters and lock plans under a model checker.
//!
//! The engine's sources are compiled a second time, with `model/sync.rs` in place of `sync.rs`;
//! shuttle then runs each test under many schedules, with a switch possible at every lock and
//! atomic. It reports a deadlock, and a failure with the schedule that leads to it.
#![allow(dead_code, unused_imports)]

#[path = "../src/access.rs"]
mod access;
#[path = "../src/change.rs"]
mod change;
#[path = "../src/door/mod.rs"]
mod door;
#[path = "../src/engine.rs"]
mod engine;
#[path = "../src/entry.rs"]
mod entry;
#[path = "../src/evict.rs"]
mod evict;
#[path = "../src/expire.rs"]
mod expire;
#[path = "../src/gate.rs"]
mod gate;
#[path = "../src/notice.rs"]
mod notice;
#[path = "../src/settings.rs"]
mod settings;
#[path = "../src/shard.rs"]
mod shard;
#[path = "../src/sizes.rs"]
mod sizes;
#[path = "../src/snapshot.rs"]
mod snapshot;
#[path = "model/sync.rs"]
mod sync;
#[path = "../src/txn.rs"]
mod txn;
#[path = "../src/undo/mod.rs"]
mod undo;
#[path = "../src/wait.rs"]
mod wait;
#[path = "../src/worker.rs"]
mod worker;

#[path = "model/gates.rs"]
mod gates;
#[path = "model/plans.rs"]
mod plans;
#[path = "model/waiters.rs"]
mod waiters;

use door::*;
use engine::*;
use entry::*;
use settings::*;
use sizes::*;
use txn::*;
use wait::*;
use worker::*;

/// Runs a scenario under `schedules` random schedules, and as many that switch rarely but at the
/// worst places.
fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(scenario.clone(), schedules);
    shuttle::check_pct(scenario, schedules, 3);
}
