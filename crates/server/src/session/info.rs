//! INFO: what the server is and does, in the sections and fields that tools read.
//!
//! It waits for nobody: monitoring has to see a server that is busy. Keys that a script keeps locked
//! count as they did at the last look.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use command::row::category;
use command::row::flag::{LOADING, STALE};
use command::{Command, Group, Result};
use engine::DbSize;

use crate::config::Config;
use crate::dispatch;
use crate::pubsub::Kind;
use crate::request::{Request, SessionHandler, row};
use crate::server::{Server, unix_ms};
use crate::session::script_report;
use crate::stats::{CommandTotals, command_totals};
use crate::table::table;
use crate::{LUAR_VERSION, REDIS_VERSION, memory};

pub const TABLE: &[Command<SessionHandler>] = &[row(Group::Server, "info", -1, info)
    .flags(LOADING | STALE)
    .categories(category::DANGEROUS)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .history(&[("7.0.0", "Added support for taking multiple section arguments.")])
    .summary("Reports what the server is and does.")
    .syntax("[section [section ...]]")];

type Section = fn(&mut String, &mut Request<'_, '_>);

/// Sections in their order; the flag says whether a plain INFO shows them.
const SECTIONS: &[(&str, bool, Section)] = &[
    ("server", true, server),
    ("clients", true, clients),
    ("memory", true, memory_section),
    ("persistence", true, persistence),
    ("stats", true, stats),
    ("replication", true, replication),
    ("cpu", true, cpu),
    ("modules", true, modules),
    ("commandstats", false, commandstats),
    ("scripts", true, scripts),
    ("errorstats", true, errorstats),
    ("latencystats", false, latencystats),
    ("cluster", true, cluster),
    ("keyspace", true, keyspace),
];

fn info(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let asked: Vec<String> =
        args[1..].iter().map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase()).collect();
    let has = |name: &str| asked.iter().any(|section| section == name);
    let everything = has("all") || has("everything");
    let by_default = asked.is_empty() || has("default");
    let mut text = String::new();
    for (name, is_default, section) in SECTIONS {
        let wanted = has(name)
            || (everything && *name != "modules")
            || (by_default && *is_default)
            || (has("everything") && *name == "modules");
        if wanted {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            section(&mut text, request);
        }
    }
    request.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// Writes `field:value` lines.
macro_rules! fields {
    ($out:expr, $($name:literal: $value:expr),* $(,)?) => {
        $( let _ = write!($out, concat!($name, ":{}\r\n"), $value); )*
    };
}

fn server(out: &mut String, request: &mut Request<'_, '_>) {
    let (server, config) = (request.server(), request.config());
    let uptime = server.started.elapsed().as_secs();
    let now_us = unix_ms() as u64 * 1000;
    let file = server.config.file().map_or_else(String::new, |file| file.display().to_string());
    let os = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    out.push_str("# Server\r\n");
    fields!(out,
        "redis_version": REDIS_VERSION,
        "luar_version": LUAR_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": "0",
        "redis_mode": "standalone",
        "os": format_args!("Linux {} {}", os.trim(), std::env::consts::ARCH),
        "arch_bits": usize::BITS,
        "monotonic_clock": "POSIX clock_gettime",
        "multiplexing_api": "epoll",
        "atomicvar_api": "c11-builtin",
        "gcc_version": "0.0.0",
        "process_id": std::process::id(),
        "process_supervised": server.supervisor.name(),
        "run_id": server.run_id,
        "tcp_port": if config.port != 0 { config.port } else { config.tls_port },
        "server_time_usec": now_us,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime / 86_400,
        "hz": config.hz,
        "configured_hz": config.hz,
        "lru_clock": (unix_ms() / 1000) & 0x00ff_ffff,
        "executable": server.executable,
        "config_file": file,
        "io_threads_active": 0,
        "workers": server.mailboxes.len(),
    );
    listeners(out, config);
}

/// One line for each kind of listener, by numbers that are Redis's for the kind.
fn listeners(out: &mut String, config: &Config) {
    let addresses = |out: &mut String| {
        for address in config.bind.iter() {
            let _ = write!(out, ",bind={}", String::from_utf8_lossy(address));
        }
    };
    if config.port != 0 {
        out.push_str("listener0:name=tcp");
        addresses(out);
        let _ = write!(out, ",port={}\r\n", config.port);
    }
    if !config.unixsocket.is_empty() {
        let _ = write!(out, "listener1:name=unix,bind={}\r\n", config.unixsocket);
    }
    if config.tls_port != 0 {
        out.push_str("listener2:name=tls");
        addresses(out);
        let _ = write!(out, ",port={}\r\n", config.tls_port);
    }
}

fn clients(out: &mut String, request: &mut Request<'_, '_>) {
    let (server, config) = (request.server(), request.config());
    let (mut pubsub, mut watching, mut watched) = (0, 0, 0);
    let (mut longest_input, mut longest_output) = (0, 0);
    let (mut blocking, mut blocking_on_no_key) = (HashSet::new(), HashSet::new());
    for info in server.clients.lock().values() {
        let listens = info.subscriptions.load(Ordering::Relaxed)
            + info.patterns.load(Ordering::Relaxed)
            + info.shard_subscriptions.load(Ordering::Relaxed);
        pubsub += usize::from(listens > 0);
        let keys = info.watching.load(Ordering::Relaxed);
        watching += usize::from(keys > 0);
        watched += keys;
        if let Some(waiter) = &*info.waiter.lock() {
            blocking.extend(waiter.keys.iter().cloned());
            if dispatch::waits_for_what_is_there(waiter) {
                blocking_on_no_key.extend(waiter.keys.iter().cloned());
            }
        }
        longest_input = longest_input.max(info.query_buffer_bytes.load(Ordering::Relaxed));
        longest_output = longest_output.max(info.output_buffer_bytes.load(Ordering::Relaxed));
    }
    out.push_str("# Clients\r\n");
    fields!(out,
        "connected_clients": server.connected.load(Ordering::Relaxed),
        "cluster_connections": 0,
        "maxclients": config.maxclients,
        "client_recent_max_input_buffer": longest_input,
        "client_recent_max_output_buffer": longest_output,
        "blocked_clients": server.blocked.load(Ordering::Relaxed),
        "tracking_clients": server.tracking.clients(),
        "pubsub_clients": pubsub,
        "watching_clients": watching,
        "clients_in_timeout_table": server.blocked.load(Ordering::Relaxed),
        "total_watched_keys": watched,
        "total_blocking_keys": blocking.len(),
        "total_blocking_keys_on_nokey": blocking_on_no_key.len(),
    );
}

/// A size as people read it: `1.50M`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.2}{}", UNITS[unit])
}

fn ratio(a: u64, b: u64) -> String {
    format!("{:.2}", a as f64 / b.max(1) as f64)
}

fn memory_section(out: &mut String, request: &mut Request<'_, '_>) {
    let (server, config) = (request.server(), request.config());
    let used = memory::used_bytes();
    let peak = memory::peak_bytes().max(used);
    let resident = memory::resident_bytes();
    let allocator = memory::allocator_stats();
    let (vm, cache) = (server.scripts.vm_bytes(), server.scripts.cache.used_bytes());
    let libraries = server.scripts.functions.current();
    let functions = libraries.bytes();
    let overhead = server.startup_bytes.load(Ordering::Relaxed);
    let dataset = used.saturating_sub(overhead + vm + cache + functions);
    let total = memory::system_bytes();
    out.push_str("# Memory\r\n");
    fields!(out,
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_rss": resident,
        "used_memory_rss_human": human(resident),
        "used_memory_peak": peak,
        "used_memory_peak_human": human(peak),
        "used_memory_peak_perc": format_args!("{:.2}%", used as f64 * 100.0 / peak.max(1) as f64),
        "used_memory_overhead": overhead + vm + cache + functions,
        "used_memory_startup": overhead,
        "used_memory_dataset": dataset,
        "used_memory_dataset_perc":
            format_args!("{:.2}%", dataset as f64 * 100.0 / used.saturating_sub(overhead).max(1) as f64),
        "allocator_allocated": allocator.allocated,
        "allocator_active": allocator.active,
        "allocator_resident": allocator.resident,
        "allocator_muzzy": 0,
        "total_system_memory": total,
        "total_system_memory_human": human(total),
        "used_memory_lua": vm,
        "used_memory_vm_eval": vm,
        "used_memory_lua_human": human(vm),
        "used_memory_scripts_eval": cache,
        "number_of_cached_scripts": server.scripts.cache.len(),
        "number_of_functions": libraries.function_count(),
        "number_of_libraries": libraries.library_count(),
        "used_memory_vm_functions": 0,
        "used_memory_vm_total": vm,
        "used_memory_vm_total_human": human(vm),
        "used_memory_functions": functions,
        "used_memory_scripts": cache + functions,
        "used_memory_scripts_human": human(cache + functions),
        "maxmemory": config.maxmemory_bytes,
        "maxmemory_human": human(config.maxmemory_bytes),
        "maxmemory_policy": config.maxmemory_policy.as_str(),
        "allocator_frag_ratio": ratio(allocator.active, allocator.allocated),
        "allocator_frag_bytes": allocator.active.saturating_sub(allocator.allocated),
        "allocator_rss_ratio": ratio(allocator.resident, allocator.active),
        "allocator_rss_bytes": allocator.resident as i64 - allocator.active as i64,
        "rss_overhead_ratio": ratio(resident, allocator.resident),
        "rss_overhead_bytes": resident as i64 - allocator.resident as i64,
        "mem_fragmentation_ratio": ratio(resident, used),
        "mem_fragmentation_bytes": resident as i64 - used as i64,
        "mem_not_counted_for_evict": 0,
        "mem_replication_backlog": 0,
        "mem_total_replication_buffers": 0,
        "mem_clients_slaves": 0,
        "mem_clients_normal": server.client_memory.total_bytes(),
        "mem_cluster_links": 0,
        "mem_aof_buffer": 0,
        "mem_allocator": memory::ALLOCATOR_NAME,
        "active_defrag_running": 0,
        "lazyfree_pending_objects": server.engine.pending_free(),
        "lazyfreed_objects": server.engine.freed(),
    );
}

fn persistence(out: &mut String, request: &mut Request<'_, '_>) {
    let server = request.server();
    let (loading, saves) = (&server.durability.loading, &server.durability.saves);
    let ok = |is_ok: bool| if is_ok { "ok" } else { "err" };
    let (keys, keys_total, backlog_bytes, backlog_bytes_max) = saves.progress();
    let (took_seconds, current_seconds) = saves.times_seconds();
    let percent = keys as f64 * 100.0 / keys_total.max(1) as f64;
    out.push_str("# Persistence\r\n");
    fields!(out,
        "loading": u8::from(loading.is_on()),
        "async_loading": 0,
        "current_cow_peak": backlog_bytes_max,
        "current_cow_size": backlog_bytes,
        "current_cow_size_age": 0,
        "current_fork_perc": format_args!("{percent:.2}"),
        "current_save_keys_processed": keys,
        "current_save_keys_total": keys_total,
        "rdb_changes_since_last_save": saves.unsaved_changes(server),
        "rdb_bgsave_in_progress": u8::from(saves.is_running()),
        "rdb_last_save_time": saves.last_seconds(),
        "rdb_last_bgsave_status": ok(!saves.has_failed()),
        "rdb_last_bgsave_time_sec": took_seconds,
        "rdb_current_bgsave_time_sec": current_seconds,
        "rdb_saves": saves.count(),
        "rdb_last_cow_size": saves.backlog_bytes_max(),
        "rdb_last_part_size": saves.part_bytes_max(),
        "rdb_last_load_keys_expired": loading.keys_expired(),
        "rdb_last_load_keys_loaded": loading.keys_loaded(),
    );
    for (name, value) in server.durability.aof.info() {
        let _ = write!(out, "{name}:{value}\r\n");
    }
    fields!(out,
        "module_fork_in_progress": 0,
        "module_fork_last_cow_size": 0,
    );
    if loading.is_on() {
        let progress = loading.progress();
        fields!(out,
            "loading_start_time": progress.started_seconds,
            "loading_total_bytes": progress.total_bytes,
            "loading_rdb_used_mem": progress.used_memory_bytes,
            "loading_loaded_bytes": progress.loaded_bytes,
            "loading_loaded_perc": format_args!("{:.2}", progress.percent),
            "loading_eta_seconds": progress.eta_seconds,
        );
    }
}

fn stats(out: &mut String, request: &mut Request<'_, '_>) {
    let server = request.server();
    let worker = |count: fn(&crate::stats::WorkerStats) -> u64| -> u64 {
        server.worker_stats.iter().map(|stats| count(stats)).sum()
    };
    let commands = worker(|stats| stats.total_commands.value());
    let input = worker(|stats| stats.net_input_bytes.value());
    let output = worker(|stats| stats.net_output_bytes.value());
    let shared = &server.stats;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let rates = server.rates.lock().per_second();
    out.push_str("# Stats\r\n");
    fields!(out,
        "total_connections_received": load(&shared.connections_received),
        "total_commands_processed": commands,
        "instantaneous_ops_per_sec": rates.commands,
        "total_net_input_bytes": input,
        "total_net_output_bytes": output,
        "total_net_repl_input_bytes": 0,
        "total_net_repl_output_bytes": 0,
        "instantaneous_input_kbps": format_args!("{:.2}", rates.input_bytes as f64 / 1024.0),
        "instantaneous_output_kbps": format_args!("{:.2}", rates.output_bytes as f64 / 1024.0),
        "instantaneous_input_repl_kbps": "0.00",
        "instantaneous_output_repl_kbps": "0.00",
        "rejected_connections": load(&shared.rejected_connections),
        "sync_full": 0,
        "sync_partial_ok": 0,
        "sync_partial_err": 0,
        "expired_keys": server.engine.total(|stats| stats.expired_keys.value()),
        "expired_stale_perc": "0.00",
        "expired_time_cap_reached_count": 0,
        "expire_cycle_cpu_milliseconds": 0,
        "evicted_keys": server.engine.total(|stats| stats.evicted_keys.value()),
        "evicted_clients": load(&shared.evicted_clients),
        "evicted_scripts": server.scripts.cache.evicted_scripts(),
        "total_eviction_exceeded_time": load(&shared.evicted_ns) / 1_000_000,
        "current_eviction_exceeded_time": 0,
        "keyspace_hits": server.engine.total(|stats| stats.keyspace_hits.value()),
        "keyspace_misses": server.engine.total(|stats| stats.keyspace_misses.value()),
        "pubsub_channels": server.pubsub.count(Kind::Channel),
        "pubsub_patterns": server.pubsub.count(Kind::Pattern),
        "pubsubshard_channels": server.pubsub.count(Kind::Shard),
        "latest_fork_usec": 0,
        "total_forks": 0,
        "migrate_cached_sockets": server.migrations.links.count(),
        "slave_expires_tracked_keys": 0,
        "active_defrag_hits": 0,
        "active_defrag_misses": 0,
        "active_defrag_key_hits": 0,
        "active_defrag_key_misses": 0,
        "total_active_defrag_time": 0,
        "current_active_defrag_time": 0,
        "tracking_total_keys": server.tracking.keys(),
        "tracking_total_items": server.tracking.items(),
        "tracking_total_prefixes": server.tracking.prefixes(),
        "unexpected_error_replies": 0,
        "total_error_replies": load(&shared.total_errors),
        "dump_payload_sanitizations": 0,
        "total_reads_processed": worker(|stats| stats.reads.value()),
        "total_writes_processed": worker(|stats| stats.writes.value()),
        "io_threaded_reads_processed": 0,
        "io_threaded_writes_processed": 0,
        "client_query_buffer_limit_disconnections": load(&shared.query_buffer_disconnections),
        "client_output_buffer_limit_disconnections": load(&shared.output_buffer_disconnections),
        "reply_buffer_shrinks": 0,
        "reply_buffer_expands": 0,
        "eventloop_cycles": worker(|stats| stats.event_loop_cycles.value()),
        "eventloop_duration_sum": worker(|stats| stats.event_loop_ns.value()) / 1000,
        "eventloop_duration_cmd_sum": worker(|stats| stats.command_ns.value()) / 1000,
        "acl_access_denied_auth": load(&shared.auth_failures),
        "acl_access_denied_cmd": load(&shared.denied_commands),
        "acl_access_denied_key": load(&shared.denied_keys),
        "acl_access_denied_channel": load(&shared.denied_channels),
    );
}

fn scripts(out: &mut String, request: &mut Request<'_, '_>) {
    let sum = |count: fn(&crate::script::Runs) -> u64| -> u64 {
        request.server().scripts.runs.iter().map(count).sum()
    };
    out.push_str("# Scripts\r\n");
    fields!(out,
        "script_atomicity": request.config().script_atomicity.as_str(),
        "script_parallel_runs": sum(|runs| runs.parallel.value()),
        "script_restarts": sum(|runs| runs.restarts.value()),
        "script_exclusive_runs": sum(|runs| runs.exclusive.value()),
        "script_nested_runs": sum(|runs| runs.nested.value()),
        "script_nested_runs_undone": sum(|runs| runs.unleashed.value()),
    );
    script_report::write_info(out, request.server());
}

fn replication(out: &mut String, request: &mut Request<'_, '_>) {
    out.push_str("# Replication\r\n");
    fields!(out,
        "role": "master",
        "connected_slaves": 0,
        "master_failover_state": "no-failover",
        "master_replid": request.server().replication_id.lock(),
        "master_replid2": "0000000000000000000000000000000000000000",
        "master_repl_offset": 0,
        "second_repl_offset": -1,
        "repl_backlog_active": 0,
        "repl_backlog_size": request.config().repl_backlog_size_bytes,
        "repl_backlog_first_byte_offset": 0,
        "repl_backlog_histlen": 0,
    );
}

/// User and system time of the process or of this thread, seconds.
pub(super) fn cpu_seconds(who: libc::c_int) -> (f64, f64) {
    // SAFETY: the pointer is to a live `rusage`, which is plain data.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime), seconds(usage.ru_stime))
}

fn cpu(out: &mut String, _: &mut Request<'_, '_>) {
    let (user, system) = cpu_seconds(libc::RUSAGE_SELF);
    let (user_children, system_children) = cpu_seconds(libc::RUSAGE_CHILDREN);
    let (user_thread, system_thread) = cpu_seconds(libc::RUSAGE_THREAD);
    out.push_str("# CPU\r\n");
    fields!(out,
        "used_cpu_sys": format_args!("{system:.6}"),
        "used_cpu_user": format_args!("{user:.6}"),
        "used_cpu_sys_children": format_args!("{system_children:.6}"),
        "used_cpu_user_children": format_args!("{user_children:.6}"),
        "used_cpu_sys_main_thread": format_args!("{system_thread:.6}"),
        "used_cpu_user_main_thread": format_args!("{user_thread:.6}"),
    );
}

fn modules(out: &mut String, _: &mut Request<'_, '_>) {
    out.push_str("# Modules\r\n");
}

fn cluster(out: &mut String, _: &mut Request<'_, '_>) {
    out.push_str("# Cluster\r\ncluster_enabled:0\r\n");
}

/// Commands that were called or refused, with their totals.
fn used_commands(server: &Server) -> Vec<(&'static str, CommandTotals)> {
    let workers = || server.worker_stats.iter().map(|stats| &**stats);
    let totals = table().all.iter().map(|c| (c.full_name, command_totals(workers(), c.id)));
    totals.filter(|(_, totals)| totals.calls + totals.rejected > 0).collect()
}

fn commandstats(out: &mut String, request: &mut Request<'_, '_>) {
    out.push_str("# Commandstats\r\n");
    for (name, totals) in used_commands(request.server()) {
        let us = totals.ns / 1000;
        let _ = write!(
            out,
            "cmdstat_{name}:calls={},usec={us},usec_per_call={:.2},rejected_calls={},\
             failed_calls={}\r\n",
            totals.calls,
            totals.ns as f64 / 1000.0 / totals.calls.max(1) as f64,
            totals.rejected,
            totals.failed
        );
    }
}

fn errorstats(out: &mut String, request: &mut Request<'_, '_>) {
    out.push_str("# Errorstats\r\n");
    for (code, count) in request.server().errors() {
        let _ = write!(out, "errorstat_{code}:count={count}\r\n");
    }
}

fn latencystats(out: &mut String, request: &mut Request<'_, '_>) {
    out.push_str("# Latencystats\r\n");
    for (name, totals) in used_commands(request.server()) {
        if totals.buckets.is_empty() {
            continue;
        }
        let _ = write!(out, "latency_percentiles_usec_{name}:");
        let percentiles = &request.config().latency_tracking_info_percentiles.0;
        for (index, percentile) in percentiles.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let us = totals.percentile_ns(*percentile) as f64 / 1000.0;
            let _ = write!(out, "{comma}p{percentile}={us:.3}");
        }
        out.push_str("\r\n");
    }
}

fn keyspace(out: &mut String, request: &mut Request<'_, '_>) {
    out.push_str("# Keyspace\r\n");
    // Whoever holds shards, or all gates, holds its gate.
    let holds = request.txn.is_exclusive() || !request.txn.held().is_empty();
    let has_gate = holds || request.lp.enter_gate();
    let sizes = request.txn.sizes_at_a_glance(has_gate);
    for (index, DbSize { keys, expires, avg_ttl_ms }) in sizes.into_iter().enumerate() {
        if keys > 0 {
            let _ = write!(out, "db{index}:keys={keys},expires={expires},avg_ttl={avg_ttl_ms}\r\n");
        }
    }
}
