//! HOTKEYS, as of Redis 8.6: which keys cost the most.

use command::call::{integer, is};
use command::row::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result};

use crate::hot_keys::{Used, Wish};
use crate::request::{Request, SessionHandler, row};
use crate::session::info::cpu_seconds;

const GROUP: Group = Group::Server;

pub const TABLE: &[Command<SessionHandler>] = &[Command::container(
    GROUP,
    "hotkeys",
    -2,
    &[
        row(GROUP, "get", 2, get)
            .flags(ADMIN | NOSCRIPT)
            .since("8.6.0")
            .complexity("O(K) in the keys answered")
            .summary("Answers which keys cost the most."),
        row(GROUP, "help", 2, help)
            .flags(LOADING | STALE)
            .since("8.6.0")
            .summary("Says what HOTKEYS can do."),
        row(GROUP, "reset", 2, reset)
            .flags(ADMIN | NOSCRIPT)
            .since("8.6.0")
            .summary("Forgets what was counted."),
        row(GROUP, "start", -2, start)
            .flags(ADMIN | NOSCRIPT)
            .since("8.6.0")
            .summary("Begins to count what keys cost.")
            .syntax(
                "metrics:(METRICS count [CPU] [NET]) [COUNT k] [DURATION seconds] [SAMPLE ratio]",
            ),
        row(GROUP, "stop", 2, stop)
            .flags(ADMIN | NOSCRIPT)
            .since("8.6.0")
            .summary("Ends the counting; what was counted stays."),
    ],
)
.since("8.6.0")
.complexity("Depends on subcommand.")
.summary("Holds the commands about hot keys.")];

fn used(request: &Request<'_, '_>) -> Used {
    let (user, system) = cpu_seconds(libc::RUSAGE_SELF);
    let workers = request.server().worker_stats.iter();
    Used {
        user_ms: (user * 1000.0) as i64,
        system_ms: (system * 1000.0) as i64,
        net_bytes: workers
            .map(|stats| stats.net_input_bytes.value() + stats.net_output_bytes.value())
            .sum(),
    }
}

fn start(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let wish = wish(&args[2..])?;
    let (used, now_ms) = (used(request), request.lp.now_ms());
    if !request.server().hot_keys.start(wish, used, now_ms) {
        return Err(Error::of("ERR hotkey tracking session already in progress"));
    }
    request.reply.ok();
    Ok(())
}

fn wish(options: &[&[u8]]) -> Result<Wish> {
    let mut wish = Wish { time: false, bytes: false, count: 10, ratio: 1, duration_ms: None };
    let [word, count, rest @ ..] = options else {
        return Err(Error::of("ERR METRICS parameter is required"));
    };
    if !is(word, "METRICS") {
        return Err(Error::of("ERR METRICS parameter is required"));
    }
    let count = integer(count).ok().and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0);
    let count = count.ok_or(Error::of("ERR METRICS count must be a positive integer"))?;
    let Some((metrics, mut rest)) = rest.split_at_checked(count) else {
        let text = "ERR METRICS count does not match number of metric types provided";
        return Err(Error::of(text));
    };
    for metric in metrics {
        let (chosen, name) = match metric {
            metric if is(metric, "CPU") => (&mut wish.time, "CPU"),
            metric if is(metric, "NET") => (&mut wish.bytes, "NET"),
            // There may be others one day.
            _ => continue,
        };
        if std::mem::replace(chosen, true) {
            return Err(Error::new(format!("ERR METRICS {name} is there twice")));
        }
    }
    if !wish.time && !wish.bytes {
        return Err(Error::of("ERR METRICS no valid metrics"));
    }
    while let [option, value, more @ ..] = rest {
        if is(option, "COUNT") {
            let count = integer(value).ok().filter(|count| (1..=64).contains(count));
            let count = count.ok_or(Error::of("ERR COUNT must be between 1 and 64"))?;
            wish.count = count as usize;
        } else if is(option, "DURATION") {
            let seconds = integer(value).ok().filter(|seconds| *seconds >= 0);
            let seconds = seconds.ok_or(Error::of("ERR DURATION must be non-negative"))?;
            // 0 has no end.
            wish.duration_ms = (seconds > 0).then_some(seconds.saturating_mul(1000));
        } else if is(option, "SAMPLE") {
            let ratio = integer(value).ok().filter(|ratio| *ratio > 0);
            wish.ratio = ratio.ok_or(Error::of("ERR SAMPLE ratio must be positive"))? as u64;
        } else if is(option, "SLOTS") {
            let text = "ERR SLOTS parameter cannot be used in non-cluster mode";
            return Err(Error::of(text));
        } else {
            return Err(Error::SYNTAX);
        }
        rest = more;
    }
    if rest.is_empty() { Ok(wish) } else { Err(Error::SYNTAX) }
}

fn stop(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let (used, now_ms) = (used(request), request.lp.now_ms());
    if !request.server().hot_keys.stop(used, now_ms) {
        return Err(Error::of("ERR no hotkey tracking session in progress"));
    }
    request.reply.ok();
    Ok(())
}

fn reset(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let (used, now_ms) = (used(request), request.lp.now_ms());
    if !request.server().hot_keys.reset(used, now_ms) {
        return Err(Error::of("ERR hotkey tracking session in progress, stop tracking first"));
    }
    request.reply.ok();
    Ok(())
}

fn get(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let (used, now_ms) = (used(request), request.lp.now_ms());
    let Some(report) = request.server().hot_keys.report(used, now_ms) else {
        request.reply.null();
        return Ok(());
    };
    let wish = report.wish;
    let reply = &mut request.reply;
    reply.array(1);
    reply.map(7 + if wish.time { 3 } else { 0 } + if wish.bytes { 2 } else { 0 });
    reply.bulk(b"tracking-active");
    reply.integer(i64::from(report.is_on));
    reply.bulk(b"sample-ratio");
    reply.integer(wish.ratio as i64);
    reply.bulk(b"selected-slots");
    reply.array(1);
    reply.array(2);
    reply.integer(0);
    reply.integer(16383);
    let mut number = |name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    };
    number("all-commands-all-slots-us", report.us as i64);
    number("net-bytes-all-commands-all-slots", report.bytes as i64);
    number("collection-start-time-unix-ms", report.started_ms);
    number("collection-duration-ms", report.duration_ms);
    if wish.time {
        number("total-cpu-time-user-ms", report.used.user_ms);
        number("total-cpu-time-sys-ms", report.used.system_ms);
    }
    if wish.bytes {
        number("total-net-bytes", report.used.net_bytes as i64);
    }
    let lists = [
        (wish.time, "by-cpu-time-us", report.by_us),
        (wish.bytes, "by-net-bytes", report.by_bytes),
    ];
    for (_, name, list) in lists.into_iter().filter(|(is_wanted, ..)| *is_wanted) {
        reply.bulk(name.as_bytes());
        reply.array(2 * list.len());
        for (key, amount) in list {
            reply.bulk(&key);
            reply.integer(amount as i64);
        }
    }
    Ok(())
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "HOTKEYS",
        &[
            "GET",
            "    Which keys cost the most, and what all commands have cost.",
            "RESET",
            "    Forget what was counted.",
            "START METRICS <count> [CPU] [NET] [COUNT <k>] [DURATION <seconds>] [SAMPLE <ratio>]",
            "    Begin to count time, bytes on the wire, or both.",
            "STOP",
            "    End the counting; what was counted stays.",
        ],
    );
    Ok(())
}
