//! LATENCY LATEST, HISTORY, RESET, GRAPH and DOCTOR: what the latency monitor has seen.

use std::fmt::Write;

use command::{Error, Result};

use crate::request::Request;

pub fn latest(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let events = request.server().latency.events();
    request.reply.array(events.len());
    for (event, series) in events {
        request.reply.array(4);
        request.reply.bulk(event.as_bytes());
        let last = series.samples.back();
        request.reply.integer(last.map_or(0, |sample| sample.at_seconds));
        request.reply.integer(last.map_or(0, |sample| i64::from(sample.ms)));
        request.reply.integer(i64::from(series.max_ms));
    }
    Ok(())
}

pub fn history(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let series = request.server().latency.series(args[2]).unwrap_or_default();
    request.reply.array(series.samples.len());
    for sample in &series.samples {
        request.reply.array(2);
        request.reply.integer(sample.at_seconds);
        request.reply.integer(i64::from(sample.ms));
    }
    Ok(())
}

pub fn reset(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let count = request.server().latency.reset(&args[2..]);
    request.reply.integer(count as i64);
    Ok(())
}

pub fn graph(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let event = String::from_utf8_lossy(args[2]);
    let Some(series) = request.server().latency.series(args[2]) else {
        return Err(Error::new(format!("ERR No samples available for event '{event}'")));
    };
    let graph = series.graph(&event, request.lp.now_ms() / 1000);
    request.reply.verbatim("txt", graph.as_bytes());
    Ok(())
}

pub fn doctor(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let text = report(request);
    request.reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn report(request: &Request<'_, '_>) -> String {
    let config = request.config();
    let events = request.server().latency.events();
    if events.is_empty() && config.latency_monitor_threshold_ms == 0 {
        return "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> \
                turns it on.\n"
            .into();
    }
    if events.is_empty() {
        return "Nothing took longer than latency-monitor-threshold.\n".into();
    }
    let now_seconds = request.lp.now_ms() / 1000;
    let mut text = String::new();
    // Writing to a string does not fail.
    for (index, (event, series)) in events.iter().enumerate() {
        let summary = series.summary(now_seconds);
        let _ = writeln!(
            text,
            "{}. {event}: {} latency spikes (average {}ms, mean deviation {}ms, period {:.2} sec). \
             Worst all time event {}ms.",
            index + 1,
            summary.count,
            summary.average_ms,
            summary.deviation_ms,
            summary.period_seconds,
            summary.max_ms
        );
    }
    let is_seen = |name: &str| events.iter().any(|(event, _)| *event == name);
    text.push('\n');
    if is_seen("command") {
        let threshold_us = config.latency_monitor_threshold_ms.saturating_mul(1000);
        let limit_us = config.slowlog_log_slower_than_us;
        text.push_str(match limit_us < 0 || limit_us as u64 > threshold_us {
            true => {
                "- The slow log would tell which commands these are, but slowlog-log-slower-than is \
                 above latency-monitor-threshold.\n"
            }
            false => "- SLOWLOG GET tells which commands these are.\n",
        });
        text.push_str("- SCRIPT STATS tells which scripts take long.\n");
    }
    if is_seen("fast-command") {
        text.push_str(
            "- Commands that should be fast were slow: they may have waited for the processor or \
             for memory. Look at the load of the machine.\n",
        );
    }
    if is_seen("expire-cycle") {
        text.push_str(
            "- Many keys expire at the same time. A little chance in their times to live spreads \
             the work.\n",
        );
    }
    if is_seen("eviction-cycle") {
        text.push_str(
            "- Memory is full, and commands wait for keys to be evicted: see maxmemory.\n",
        );
    }
    text
}
