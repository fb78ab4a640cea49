//! CONFIG: what the configuration is, and changing it while the server runs.
//!
//! The values and their rules are the store's (`config/`); here is what a change entails.

use command::row::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use command::{Command, Error, Group, Result};

use crate::config::{Config, Effect, reason};
use crate::limits;
use crate::mailbox::Mail;
use crate::request::{Request, SessionHandler, row};
use crate::server::Server;

const GROUP: Group = Group::Server;
const COMMON: u32 = ADMIN | NOSCRIPT | LOADING | STALE;
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

pub const TABLE: &[Command<SessionHandler>] = &[Command::container(
    GROUP,
    "config",
    -2,
    &[
        row(GROUP, "get", -3, get)
            .flags(COMMON)
            .since("2.0.0")
            .complexity("O(N) in the parameters asked for")
            .history(&[(
                "7.0.0",
                "Added the ability to pass multiple pattern parameters in one call",
            )])
            .summary("Answers the values of the parameters that match.")
            .syntax("parameter [parameter ...]"),
        row(GROUP, "help", 2, help)
            .flags(LOADING | STALE)
            .since("5.0.0")
            .summary("Says what CONFIG can do."),
        row(GROUP, "resetstat", 2, resetstat)
            .flags(COMMON)
            .since("2.0.0")
            .tips(ALL_NODES)
            .summary("Sets the statistics of INFO back to zero."),
        row(GROUP, "rewrite", 2, rewrite)
            .flags(COMMON)
            .since("2.8.0")
            .tips(ALL_NODES)
            .summary("Brings the configuration file up to date."),
        row(GROUP, "set", -4, set)
            .flags(COMMON)
            .since("2.0.0")
            .complexity("O(N) in the parameters set")
            .tips(ALL_NODES)
            .history(&[("7.0.0", "Added the ability to set multiple parameters in one call.")])
            .summary("Sets parameters, all of them or none.")
            .syntax("data:(parameter value) [parameter value ...]"),
    ],
)
.since("2.0.0")
.complexity("Depends on subcommand.")
.summary("Holds the commands about the configuration.")];

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "CONFIG",
        &[
            "GET <pattern> [<pattern> ...]",
            "    The parameters that match, with their values.",
            "RESETSTAT",
            "    Set the statistics back to zero.",
            "REWRITE",
            "    Bring the configuration file up to date.",
            "SET <parameter> <value> [<parameter> <value> ...]",
            "    Set parameters, all of them or none.",
        ],
    );
    Ok(())
}

fn get(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let matches = |pattern: &[u8], name: &[u8]| data::glob::matches(pattern, name, true);
    let found = request.server().config.get(&args[2..], matches);
    request.reply.map(found.len());
    for (name, value) in found {
        request.reply.bulk(&name);
        request.reply.bulk(&value);
    }
    Ok(())
}

fn set(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    let server = request.server();
    let is_local = request.client.info.is_local();
    let outcome = server
        .config
        .set(&args[2..], is_local, |effect, config| bring_about(server, effect, config));
    if let Err(error) = outcome {
        let text = String::from_utf8_lossy(&error.reply()).into_owned();
        return Err(Error::new(text));
    }
    // Workers look at the configuration when they wake up, this one before its next command.
    server.broadcast(|| Mail::Wake);
    server.durability.aof.journal.nudge();
    request.lp.end_shift();
    request.reply.ok();
    Ok(())
}

/// Does what a change entails beyond other values being read. The error is its reason in Redis's
/// words.
fn bring_about(
    server: &Server,
    effect: Effect,
    config: &Config,
) -> std::result::Result<(), String> {
    let configure_tls = || {
        server.listeners.configure_tls(config).map_err(|error| {
            crate::log_warning!("{error}");
            String::from("Unable to update TLS configuration. Check server logs.")
        })
    };
    let listen_or = |failure: &str| {
        server.listeners.listen(config).map_err(|error| {
            crate::log_warning!("{error}");
            failure.to_owned()
        })
    };
    let listen = || listen_or("Unable to listen on this port. Check server logs.");
    match effect {
        Effect::Listen => listen(),
        Effect::Bind => listen_or("Failed to bind to specified addresses."),
        Effect::TrackedKeys => {
            server.tracking.limit(config.tracking_table_max_keys);
            Ok(())
        }
        Effect::Tls => configure_tls(),
        Effect::TlsPort => configure_tls().and_then(|()| listen()),
        Effect::Clients => limits::allow_clients(config.maxclients).map_err(|possible| {
            format!(
                "The operating system is not able to handle the specified number of clients, try \
                 with {possible}"
            )
        }),
        Effect::Log => {
            crate::log::set_level(config.loglevel.into());
            Ok(())
        }
        Effect::Slowlog => {
            server.slowlog.shorten(config.slowlog_max_len as usize);
            Ok(())
        }
        Effect::Scripts => {
            server.scripts.cache.shorten(config.script_cache_entries);
            Ok(())
        }
        Effect::AppendOnly => server.durability.aof.apply(server, config),
        Effect::Garbage => {
            if !config.aof_disable_auto_gc {
                server.durability.aof.collect_garbage();
            }
            Ok(())
        }
        Effect::Directory => {
            std::env::set_current_dir(config.dir.as_path()).map_err(|error| reason(&error))
        }
        Effect::Idle(why) => Err(format!("it would have no effect: {why}")),
        Effect::Password => {
            server.acl.set_default_password(config.requirepass.as_bytes());
            Ok(())
        }
        // Workers read these where they need them: when memory is full, when a value is written,
        // when a timer is due.
        Effect::Memory | Effect::Encodings | Effect::Latency | Effect::Timers | Effect::Events => {
            Ok(())
        }
    }
}

fn resetstat(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    request.server().reset_stats();
    request.reply.ok();
    Ok(())
}

fn rewrite(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let server = request.server();
    if let Err(error) = server.config.rewrite(server.acl.as_setting(request.config())) {
        crate::log_warning!("CONFIG REWRITE failed: {error}");
        return Err(Error::new(error.to_string()));
    }
    crate::log_notice!("CONFIG REWRITE executed with success.");
    request.reply.ok();
    Ok(())
}
