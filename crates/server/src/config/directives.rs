//! The table of directives. One line here is all there is to a directive: the field it fills, its
//! names, its default as one would write it, what it accepts, and what else is to be known about it.
//! Reading files and command lines, `CONFIG GET`, `SET` and `REWRITE`, and [`Config`] itself, come
//! from it. Names, defaults and ranges are those of Redis 7.2 where there is no reason otherwise.

use super::special::*;
use super::value::{Numbers, Text, WRONG_ARGUMENTS};
use super::value::{Setting, Source, any_text, append_file_name, file_name, memory, octal, range};

/// What has to be done, beside replacing the [`Config`], when directives change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Listen on another port.
    Listen,
    /// Listen on other addresses.
    Bind,
    /// Remember fewer keys that clients have read.
    TrackedKeys,
    /// See that enough files can be opened for that many clients.
    Clients,
    /// The log's level.
    Log,
    /// The default user's password.
    Password,
    /// Memory limits and eviction: evict now if there is too much.
    Memory,
    /// Certificates, keys, whom to trust.
    Tls,
    /// Listen for TLS on another port, or no more.
    TlsPort,
    /// Files of the log that no longer count are kept, or removed.
    Garbage,
    /// Limits of compact encodings.
    Encodings,
    /// Shorten the slow log.
    Slowlog,
    /// Latency tracking was turned on or off, or its percentiles changed.
    Latency,
    /// What scripts are allowed.
    Scripts,
    /// How often background work runs.
    Timers,
    /// Classes of keyspace events.
    Events,
    /// The working directory.
    Directory,
    /// Whether there is an append-only file.
    AppendOnly,
    /// None, for this reason: the value is another than the default, and does nothing.
    Idle(&'static str),
}

/// What there is to know about a directive beside its value.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Can only be set at start.
    pub immutable: bool,
    /// `CONFIG SET` refuses it unless `enable-protected-configs` says otherwise.
    pub protected: bool,
    /// Its value is not to be logged.
    pub sensitive: bool,
    /// CONFIG GET and SET do not know it.
    pub hidden: bool,
    /// For tests only: CONFIG GET answers it to its whole name, and to no pattern.
    pub concealed: bool,
    pub effect: Option<Effect>,
    /// It names a file: setting it to what it was has its effect again.
    pub volatile: bool,
    /// Any other value than the default needs this, which is not built yet: refused.
    pub unbuilt: Option<&'static str>,
    /// Why another value than the default changes nothing: accepted at start, with a warning, and
    /// refused by `CONFIG SET`.
    pub idle: Option<&'static str>,
}

const MUTABLE: Traits = Traits {
    immutable: false,
    protected: false,
    sensitive: false,
    hidden: false,
    concealed: false,
    effect: None,
    volatile: false,
    unbuilt: None,
    idle: None,
};
const IMMUTABLE: Traits = Traits { immutable: true, ..MUTABLE };

impl Traits {
    const fn then(self, effect: Effect) -> Traits {
        Traits { effect: Some(effect), ..self }
    }

    const fn protected(self) -> Traits {
        Traits { protected: true, ..self }
    }

    const fn sensitive(self) -> Traits {
        Traits { sensitive: true, ..self }
    }

    const fn volatile(self) -> Traits {
        Traits { volatile: true, ..self }
    }

    const fn hidden(self) -> Traits {
        Traits { hidden: true, ..self }
    }

    const fn concealed(self) -> Traits {
        Traits { concealed: true, ..self }
    }

    const fn unbuilt(self, what: &'static str) -> Traits {
        Traits { unbuilt: Some(what), ..self }
    }

    const fn idle(self, why: &'static str) -> Traits {
        Traits { idle: Some(why), ..self }
    }
}

type Apply = fn(&mut Config, &[&[u8]], Source) -> Result<(), String>;

/// A row of the table.
pub struct Directive {
    pub name: &'static str,
    /// Other names for it, which `CONFIG GET` lists too.
    pub aliases: &'static [&'static str],
    /// As it would be written in a file.
    pub default: &'static str,
    /// Whether it takes several arguments.
    pub multi: bool,
    pub traits: Traits,
    apply: Apply,
    text: fn(&Config) -> Vec<u8>,
    lines: fn(&Config) -> Vec<Vec<u8>>,
}

macro_rules! directives {
    ($($(#[$doc:meta])* $field:ident: $type:ty =
        $name:literal $(| $alias:literal)*, $default:literal, $rule:expr, $traits:expr;)*) => {
        /// The values of all directives. Workers hold a snapshot and read plain fields; see
        /// [`ConfigStore`](super::ConfigStore).
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Config {
            /// Neither valid nor default: what the defaults are applied to.
            fn blank() -> Config {
                Config { $($field: Default::default(),)* }
            }
        }

        /// All directives, in the order in which they are listed and appended to a file.
        pub static DIRECTIVES: &[Directive] = &[$(Directive {
            name: $name,
            aliases: &[$($alias),*],
            default: $default,
            multi: <$type as Setting>::MULTI,
            traits: $traits,
            apply: |config, args, source| {
                const RULE: <$type as Setting>::Rule = $rule;
                config.$field.apply(args, &RULE, source)
            },
            text: |config| {
                const RULE: <$type as Setting>::Rule = $rule;
                config.$field.text(&RULE)
            },
            lines: |config| {
                const RULE: <$type as Setting>::Rule = $rule;
                config.$field.lines(&RULE)
            },
        },)*];
    };
}

const INT: i128 = i32::MAX as i128;
const LONG: i128 = i64::MAX as i128;
const MEGABYTE: i128 = 1 << 20;

const fn int(min: i128) -> Numbers {
    range(min, INT)
}

const fn long(min: i128) -> Numbers {
    range(min, LONG)
}

const CLUSTER: &str = "cluster mode";
const REPLICATION: &str = "replication";
const LINKS: &str = "TLS between servers";
const SYSLOG: &str = "logging to syslog";
const PINNING: &str = "threads are not pinned to processors";

directives! {
    // Ours.
    /// Threads that serve clients; 0 is one for each processor.
    workers: u32 = "workers", "0", range(0, 1024), IMMUTABLE;
    /// How much memory the scripts of one worker may take, in bytes.
    lua_memory_limit_bytes: u64 = "lua-memory-limit", "256mb", memory(MEGABYTE, LONG),
        MUTABLE.then(Effect::Scripts);
    /// Whether scripts are compiled to machine code.
    script_jit: bool = "script-jit", "yes", (), IMMUTABLE;
    /// Whether a script that fails leaves nothing behind, or what it wrote, as in Redis.
    script_atomicity: ScriptAtomicity = "script-atomicity", "rollback", (),
        MUTABLE.then(Effect::Scripts);
    /// How much memory the undo log of one script may take, in bytes.
    script_undo_limit_bytes: u64 = "script-undo-limit", "256mb", memory(0, LONG),
        MUTABLE.then(Effect::Scripts);
    /// A script that runs for longer ends by itself; 0 lets it run.
    script_deadline_ms: u64 = "script-deadline", "0", long(0), MUTABLE.then(Effect::Scripts);
    /// Scripts kept that came with EVAL and not with SCRIPT LOAD.
    script_cache_entries: u64 = "script-cache-entries", "5000", long(1),
        MUTABLE.then(Effect::Scripts);

    // Network.
    bind: Words = "bind", "127.0.0.1 -::1", addresses, MUTABLE.then(Effect::Bind);
    port: u16 = "port", "6379", range(0, 65535), MUTABLE.then(Effect::Listen);
    protected_mode: bool = "protected-mode", "yes", (), MUTABLE;
    tcp_backlog: i32 = "tcp-backlog", "511", int(0), IMMUTABLE;
    unixsocket: Text = "unixsocket", "", any_text, IMMUTABLE;
    unixsocketperm: u32 = "unixsocketperm", "0", octal(0, 0o777), IMMUTABLE;
    timeout_seconds: u32 = "timeout", "0", int(0), MUTABLE;
    tcp_keepalive_seconds: u32 = "tcp-keepalive", "300", int(0), MUTABLE;
    bind_source_addr: Text = "bind-source-addr", "", any_text, MUTABLE;
    socket_mark_id: u32 = "socket-mark-id", "0", range(0, u32::MAX as i128),
        IMMUTABLE.idle("sockets are not marked");
    io_threads: i32 = "io-threads", "1", range(1, 128),
        IMMUTABLE.idle("the number of threads is set with 'workers'");
    io_threads_do_reads: bool = "io-threads-do-reads", "no", (), IMMUTABLE;

    // Process and log.
    daemonize: bool = "daemonize", "no", (), IMMUTABLE;
    supervised: Supervised = "supervised", "no", (), IMMUTABLE;
    pidfile: Text = "pidfile", "", any_text, IMMUTABLE;
    loglevel: LogLevel = "loglevel", "notice", (), MUTABLE.then(Effect::Log);
    logfile: Text = "logfile", "", any_text, IMMUTABLE;
    syslog_enabled: bool = "syslog-enabled", "no", (), IMMUTABLE.unbuilt(SYSLOG);
    syslog_ident: Text = "syslog-ident", "redis", any_text, IMMUTABLE;
    syslog_facility: SyslogFacility = "syslog-facility", "local0", (), IMMUTABLE;
    crash_log_enabled: bool = "crash-log-enabled", "yes", (), MUTABLE;
    crash_memcheck_enabled: bool = "crash-memcheck-enabled", "yes", (), MUTABLE;
    databases: u32 = "databases", "16", int(1), IMMUTABLE;
    always_show_logo: bool = "always-show-logo", "no", (), IMMUTABLE;
    set_proc_title: bool = "set-proc-title", "yes", (), IMMUTABLE;
    proc_title_template: Text =
        "proc-title-template", "{title} {listen-addr} {server-mode}", title_template,
        MUTABLE.idle("the process keeps its title");
    locale_collate: Text = "locale-collate", "", any_text,
        MUTABLE.idle("texts are compared byte by byte");
    ignore_warnings: Text = "ignore-warnings", "", any_text, MUTABLE;
    shutdown_timeout_seconds: u32 = "shutdown-timeout", "10", int(0), MUTABLE;
    shutdown_on_sigint: ShutdownFlags = "shutdown-on-sigint", "default", (), MUTABLE;
    shutdown_on_sigterm: ShutdownFlags = "shutdown-on-sigterm", "default", (), MUTABLE;
    oom_score_adj: OomScoreAdj = "oom-score-adj", "no", (),
        MUTABLE.idle("the kernel's OOM score is left alone");
    oom_score_adj_values: OomScoreAdjValues = "oom-score-adj-values", "0 200 800", (), MUTABLE;
    disable_thp: bool = "disable-thp", "yes", (), IMMUTABLE;
    server_cpulist: Text = "server_cpulist", "", any_text, IMMUTABLE.idle(PINNING);
    bio_cpulist: Text = "bio_cpulist", "", any_text, IMMUTABLE.idle(PINNING);
    aof_rewrite_cpulist: Text = "aof_rewrite_cpulist", "", any_text, IMMUTABLE.idle(PINNING);
    bgsave_cpulist: Text = "bgsave_cpulist", "", any_text, IMMUTABLE.idle(PINNING);
    enable_protected_configs: Allowed = "enable-protected-configs", "no", (), IMMUTABLE;
    enable_debug_command: Allowed = "enable-debug-command", "no", (), IMMUTABLE;
    enable_module_command: Allowed = "enable-module-command", "no", (), IMMUTABLE;

    // Clients.
    maxclients: u32 = "maxclients", "10000", range(1, u32::MAX as i128),
        MUTABLE.then(Effect::Clients);
    requirepass: Text = "requirepass", "", any_text, MUTABLE.sensitive().then(Effect::Password);
    aclfile: Text = "aclfile", "", any_text, IMMUTABLE;
    users: Users = "user", "", (), IMMUTABLE.hidden();
    acllog_max_len: u64 = "acllog-max-len", "128", long(0), MUTABLE;
    acl_pubsub_default: AclPubsubDefault = "acl-pubsub-default", "resetchannels", (), MUTABLE;
    proto_max_bulk_len: u64 = "proto-max-bulk-len", "512mb", memory(MEGABYTE, LONG), MUTABLE;
    client_query_buffer_limit_bytes: u64 =
        "client-query-buffer-limit", "1gb", memory(MEGABYTE, LONG),
        MUTABLE;
    client_output_buffer_limit: OutputLimits =
        "client-output-buffer-limit", "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60", (),
        MUTABLE;
    maxmemory_clients: MemoryShare = "maxmemory-clients", "0", (), MUTABLE.then(Effect::Memory);
    tracking_table_max_keys: u64 = "tracking-table-max-keys", "1000000", long(0), MUTABLE.then(Effect::TrackedKeys);

    // Memory.
    maxmemory_bytes: u64 = "maxmemory", "0", memory(0, u64::MAX as i128),
        MUTABLE.then(Effect::Memory);
    maxmemory_policy: MaxmemoryPolicy = "maxmemory-policy", "noeviction", (),
        MUTABLE.then(Effect::Memory);
    maxmemory_samples: u32 = "maxmemory-samples", "5", int(1), MUTABLE.then(Effect::Memory);
    maxmemory_eviction_tenacity: u32 = "maxmemory-eviction-tenacity", "10", range(0, 100),
        MUTABLE.then(Effect::Memory);
    lfu_log_factor: u32 = "lfu-log-factor", "10", int(0), MUTABLE.then(Effect::Memory);
    lfu_decay_time_minutes: u32 = "lfu-decay-time", "1", int(0), MUTABLE.then(Effect::Memory);
    lazyfree_lazy_eviction: bool = "lazyfree-lazy-eviction", "no", (), MUTABLE;
    lazyfree_lazy_expire: bool = "lazyfree-lazy-expire", "no", (), MUTABLE;
    lazyfree_lazy_server_del: bool = "lazyfree-lazy-server-del", "no", (), MUTABLE;
    lazyfree_lazy_user_del: bool = "lazyfree-lazy-user-del", "no", (), MUTABLE;
    lazyfree_lazy_user_flush: bool = "lazyfree-lazy-user-flush", "no", (), MUTABLE;
    activedefrag: bool = "activedefrag", "no", (), MUTABLE.unbuilt("active defragmentation");
    active_defrag_ignore_bytes: u64 = "active-defrag-ignore-bytes", "100mb", memory(1, LONG),
        MUTABLE;
    active_defrag_threshold_lower: u32 = "active-defrag-threshold-lower", "10", range(0, 1000),
        MUTABLE;
    active_defrag_threshold_upper: u32 = "active-defrag-threshold-upper", "100", range(0, 1000),
        MUTABLE;
    active_defrag_cycle_min: u32 = "active-defrag-cycle-min", "1", range(1, 99), MUTABLE;
    active_defrag_cycle_max: u32 = "active-defrag-cycle-max", "25", range(1, 99), MUTABLE;
    active_defrag_max_scan_fields: u64 = "active-defrag-max-scan-fields", "1000", long(1), MUTABLE;
    jemalloc_bg_thread: bool = "jemalloc-bg-thread", "yes", (), MUTABLE;

    // Background work.
    hz: u32 = "hz", "10", int(0).clamped(1, 500), MUTABLE.then(Effect::Timers);
    dynamic_hz: bool = "dynamic-hz", "yes", (), MUTABLE.then(Effect::Timers);
    active_expire_effort: u32 = "active-expire-effort", "1", range(1, 10),
        MUTABLE.then(Effect::Timers);
    activerehashing: bool = "activerehashing", "yes", (), MUTABLE;

    // Scripts.
    busy_reply_threshold_ms: u64 = "busy-reply-threshold" | "lua-time-limit", "5000", long(0),
        MUTABLE.then(Effect::Scripts);

    // What is measured.
    /// Microseconds; negative logs nothing.
    slowlog_log_slower_than_us: i64 = "slowlog-log-slower-than", "10000", long(-1), MUTABLE;
    slowlog_max_len: u64 = "slowlog-max-len", "128", long(0), MUTABLE.then(Effect::Slowlog);
    latency_tracking: bool = "latency-tracking", "yes", (), MUTABLE.then(Effect::Latency);
    latency_tracking_info_percentiles: Percentiles =
        "latency-tracking-info-percentiles", "50 99 99.9", (),
        MUTABLE.then(Effect::Latency);
    latency_monitor_threshold_ms: u64 = "latency-monitor-threshold", "0", long(0),
        MUTABLE.then(Effect::Latency);
    notify_keyspace_events: KeyspaceEvents = "notify-keyspace-events", "", (),
        MUTABLE.then(Effect::Events);

    // Compact encodings.
    list_max_listpack_size: i32 =
        "list-max-listpack-size" | "list-max-ziplist-size", "-2", range(i32::MIN as i128, INT),
        MUTABLE.then(Effect::Encodings);
    list_compress_depth: u32 = "list-compress-depth", "0", int(0), MUTABLE.then(Effect::Encodings);
    hash_max_listpack_entries: u64 =
        "hash-max-listpack-entries" | "hash-max-ziplist-entries", "512", long(0),
        MUTABLE.then(Effect::Encodings);
    hash_max_listpack_value: u64 =
        "hash-max-listpack-value" | "hash-max-ziplist-value", "64", memory(0, LONG),
        MUTABLE.then(Effect::Encodings);
    set_max_intset_entries: u64 = "set-max-intset-entries", "512", long(0),
        MUTABLE.then(Effect::Encodings);
    set_max_listpack_entries: u64 = "set-max-listpack-entries", "128", long(0),
        MUTABLE.then(Effect::Encodings);
    set_max_listpack_value: u64 = "set-max-listpack-value", "64", long(0),
        MUTABLE.then(Effect::Encodings);
    zset_max_listpack_entries: u64 =
        "zset-max-listpack-entries" | "zset-max-ziplist-entries", "128", long(0),
        MUTABLE.then(Effect::Encodings);
    zset_max_listpack_value: u64 =
        "zset-max-listpack-value" | "zset-max-ziplist-value", "64", memory(0, LONG),
        MUTABLE.then(Effect::Encodings);
    hll_sparse_max_bytes: u64 = "hll-sparse-max-bytes", "3000", memory(0, LONG), MUTABLE;
    stream_node_max_bytes: u64 = "stream-node-max-bytes", "4096", memory(0, LONG), MUTABLE;
    stream_node_max_entries: u64 = "stream-node-max-entries", "100", long(0), MUTABLE;

    // Snapshots.
    dir: Directory = "dir", ".", (), MUTABLE.protected().then(Effect::Directory);
    dbfilename: Text = "dbfilename", "dump.rdb", file_name, MUTABLE.protected();
    save: SavePoints = "save", "3600 1 300 100 60 10000", (), MUTABLE;
    stop_writes_on_bgsave_error: bool = "stop-writes-on-bgsave-error", "yes", (), MUTABLE;
    rdbcompression: bool = "rdbcompression", "yes", (), MUTABLE;
    rdbchecksum: bool = "rdbchecksum", "yes", (), IMMUTABLE;
    /// The format of what is written: 11 as Redis 7.2 writes it, 10 for Redis 7.0.
    rdb_version: RdbVersion = "rdb-version", "11", (), MUTABLE;
    rdb_del_sync_files: bool = "rdb-del-sync-files", "no", (), MUTABLE;
    rdb_save_incremental_fsync: bool = "rdb-save-incremental-fsync", "yes", (), MUTABLE;
    sanitize_dump_payload: SanitizeDumpPayload = "sanitize-dump-payload", "no", (), MUTABLE;

    /// How long each key that is loaded or saved in the background takes at least, in microseconds;
    /// below zero, one of so many keys takes one.
    key_load_delay_us: i32 = "key-load-delay", "0", range(-INT, INT), MUTABLE.concealed();
    rdb_key_save_delay_us: i32 = "rdb-key-save-delay", "0", range(-INT, INT), MUTABLE.concealed();
    /// Without effect: other threads than the one that loads serve clients.
    loading_process_events_interval_bytes: i32 =
        "loading-process-events-interval-bytes", "2097152", range(1024, INT),
        MUTABLE.concealed();

    // Append-only file.
    appendonly: bool = "appendonly", "no", (), MUTABLE.then(Effect::AppendOnly);
    appendfilename: Text = "appendfilename", "appendonly.aof", append_file_name, IMMUTABLE;
    appenddirname: Text = "appenddirname", "appendonlydir", append_file_name, IMMUTABLE;
    appendfsync: Appendfsync = "appendfsync", "everysec", (), MUTABLE;
    no_appendfsync_on_rewrite: bool = "no-appendfsync-on-rewrite", "no", (), MUTABLE;
    auto_aof_rewrite_percentage: u32 = "auto-aof-rewrite-percentage", "100", int(0), MUTABLE;
    auto_aof_rewrite_min_size_bytes: u64 = "auto-aof-rewrite-min-size", "64mb", memory(0, LONG),
        MUTABLE;
    aof_load_truncated: bool = "aof-load-truncated", "yes", (), MUTABLE;
    aof_use_rdb_preamble: bool = "aof-use-rdb-preamble", "yes", (), MUTABLE;
    aof_timestamp_enabled: bool = "aof-timestamp-enabled", "no", (), MUTABLE;
    aof_rewrite_incremental_fsync: bool = "aof-rewrite-incremental-fsync", "yes", (), MUTABLE;
    aof_disable_auto_gc: bool = "aof-disable-auto-gc", "no", (), MUTABLE.then(Effect::Garbage);

    // Replication.
    replicaof: Words = "replicaof" | "slaveof", "", host_and_port, IMMUTABLE.unbuilt(REPLICATION);
    masterauth: Text = "masterauth", "", any_text, MUTABLE.sensitive();
    masteruser: Text = "masteruser", "", any_text, MUTABLE.sensitive();
    replica_serve_stale_data: bool =
        "replica-serve-stale-data" | "slave-serve-stale-data", "yes", (),
        MUTABLE;
    replica_read_only: bool = "replica-read-only" | "slave-read-only", "yes", (), MUTABLE;
    replica_ignore_maxmemory: bool =
        "replica-ignore-maxmemory" | "slave-ignore-maxmemory", "yes", (),
        MUTABLE;
    replica_ignore_disk_write_errors: bool = "replica-ignore-disk-write-errors", "no", (), MUTABLE;
    replica_lazy_flush: bool = "replica-lazy-flush" | "slave-lazy-flush", "no", (), MUTABLE;
    replica_priority: u32 = "replica-priority" | "slave-priority", "100", int(0), MUTABLE;
    replica_announced: bool = "replica-announced", "yes", (), MUTABLE;
    replica_announce_ip: Text = "replica-announce-ip" | "slave-announce-ip", "", any_text, MUTABLE;
    replica_announce_port: u16 =
        "replica-announce-port" | "slave-announce-port", "0", range(0, 65535),
        MUTABLE;
    repl_diskless_sync: bool = "repl-diskless-sync", "yes", (), MUTABLE;
    repl_diskless_sync_delay_seconds: u32 = "repl-diskless-sync-delay", "5", int(0), MUTABLE;
    repl_diskless_sync_max_replicas: u32 = "repl-diskless-sync-max-replicas", "0", int(0), MUTABLE;
    repl_diskless_load: ReplDisklessLoad = "repl-diskless-load", "disabled", (), MUTABLE;
    repl_disable_tcp_nodelay: bool = "repl-disable-tcp-nodelay", "no", (), MUTABLE;
    repl_ping_replica_period_seconds: u32 =
        "repl-ping-replica-period" | "repl-ping-slave-period", "10", int(1),
        MUTABLE;
    repl_timeout_seconds: u32 = "repl-timeout", "60", int(1), MUTABLE;
    repl_backlog_size_bytes: u64 = "repl-backlog-size", "1mb",
        memory(1, LONG).clamped(16 * 1024, LONG), MUTABLE;
    repl_backlog_ttl_seconds: u64 = "repl-backlog-ttl", "3600", long(0), MUTABLE;
    min_replicas_to_write: u32 = "min-replicas-to-write" | "min-slaves-to-write", "0", int(0),
        MUTABLE.unbuilt(REPLICATION);
    min_replicas_max_lag_seconds: u32 = "min-replicas-max-lag" | "min-slaves-max-lag", "10", int(0),
        MUTABLE;
    propagation_error_behavior: PropagationErrorBehavior =
        "propagation-error-behavior", "ignore", (),
        MUTABLE;

    // Cluster.
    cluster_enabled: bool = "cluster-enabled", "no", (), IMMUTABLE.unbuilt(CLUSTER);
    cluster_config_file: Text = "cluster-config-file", "nodes.conf", any_text, IMMUTABLE;
    cluster_node_timeout_ms: u64 = "cluster-node-timeout", "15000", long(0), MUTABLE;
    cluster_port: u16 = "cluster-port", "0", range(0, 65535), IMMUTABLE;
    cluster_replica_validity_factor: u32 =
        "cluster-replica-validity-factor" | "cluster-slave-validity-factor", "10", int(0),
        MUTABLE;
    cluster_migration_barrier: u32 = "cluster-migration-barrier", "1", int(0), MUTABLE;
    cluster_allow_replica_migration: bool = "cluster-allow-replica-migration", "yes", (), MUTABLE;
    cluster_require_full_coverage: bool = "cluster-require-full-coverage", "yes", (), MUTABLE;
    cluster_replica_no_failover: bool =
        "cluster-replica-no-failover" | "cluster-slave-no-failover", "no", (),
        MUTABLE;
    cluster_allow_reads_when_down: bool = "cluster-allow-reads-when-down", "no", (), MUTABLE;
    cluster_allow_pubsubshard_when_down: bool = "cluster-allow-pubsubshard-when-down", "yes", (),
        MUTABLE;
    cluster_link_sendbuf_limit_bytes: u64 =
        "cluster-link-sendbuf-limit", "0", memory(0, u64::MAX as i128),
        MUTABLE;
    cluster_announce_ip: Text = "cluster-announce-ip", "", any_text, MUTABLE;
    cluster_announce_hostname: Text = "cluster-announce-hostname", "", any_text, MUTABLE;
    cluster_announce_human_nodename: Text = "cluster-announce-human-nodename", "", any_text,
        MUTABLE;
    cluster_announce_port: u16 = "cluster-announce-port", "0", range(0, 65535), MUTABLE;
    cluster_announce_tls_port: u16 = "cluster-announce-tls-port", "0", range(0, 65535), MUTABLE;
    cluster_announce_bus_port: u16 = "cluster-announce-bus-port", "0", range(0, 65535), MUTABLE;
    cluster_preferred_endpoint_type: ClusterEndpointType =
        "cluster-preferred-endpoint-type", "ip", (),
        MUTABLE;

    // TLS.
    tls_port: u16 = "tls-port", "0", range(0, 65535), MUTABLE.then(Effect::TlsPort);
    tls_cluster: bool = "tls-cluster", "no", (), MUTABLE.unbuilt(LINKS);
    tls_replication: bool = "tls-replication", "no", (), MUTABLE.unbuilt(LINKS);
    tls_cert_file: Text = "tls-cert-file", "", any_text, MUTABLE.volatile().then(Effect::Tls);
    tls_key_file: Text = "tls-key-file", "", any_text, MUTABLE.volatile().then(Effect::Tls);
    tls_key_file_pass: Text = "tls-key-file-pass", "", any_text,
        MUTABLE.sensitive().then(Effect::Tls);
    tls_client_cert_file: Text = "tls-client-cert-file", "", any_text, MUTABLE;
    tls_client_key_file: Text = "tls-client-key-file", "", any_text, MUTABLE;
    tls_client_key_file_pass: Text = "tls-client-key-file-pass", "", any_text, MUTABLE.sensitive();
    tls_dh_params_file: Text = "tls-dh-params-file", "", any_text,
        MUTABLE.idle("keys are exchanged over elliptic curves only");
    tls_ca_cert_file: Text = "tls-ca-cert-file", "", any_text, MUTABLE.volatile().then(Effect::Tls);
    tls_ca_cert_dir: Text = "tls-ca-cert-dir", "", any_text, MUTABLE.volatile().then(Effect::Tls);
    tls_auth_clients: TlsAuthClients = "tls-auth-clients", "yes", (),
        MUTABLE.then(Effect::Tls);
    tls_protocols: Text = "tls-protocols", "", any_text, MUTABLE.then(Effect::Tls);
    tls_ciphers: Text = "tls-ciphers", "", any_text, MUTABLE.then(Effect::Tls);
    tls_ciphersuites: Text = "tls-ciphersuites", "", any_text, MUTABLE.then(Effect::Tls);
    tls_prefer_server_ciphers: bool = "tls-prefer-server-ciphers", "no", (),
        MUTABLE.then(Effect::Tls);
    tls_session_caching: bool = "tls-session-caching", "yes", (), MUTABLE.then(Effect::Tls);
    tls_session_cache_size: u32 = "tls-session-cache-size", "20480", int(0),
        MUTABLE.then(Effect::Tls);
    tls_session_cache_timeout_seconds: u32 = "tls-session-cache-timeout", "300", int(0),
        MUTABLE.then(Effect::Tls);
}

/// Finds a directive, and the spelling of its name or alias, whatever the case of `name`.
pub(crate) fn lookup(name: &[u8]) -> Option<(&'static Directive, &'static str)> {
    DIRECTIVES.iter().find_map(|directive| {
        let spelling =
            directive.names().find(|candidate| candidate.as_bytes().eq_ignore_ascii_case(name))?;
        Some((directive, spelling))
    })
}

impl Directive {
    /// The name and then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// What `CONFIG GET` answers.
    pub fn text(&self, config: &Config) -> Vec<u8> {
        (self.text)(config)
    }

    /// What follows the name in a file, one item for each line.
    pub(crate) fn lines(&self, config: &Config) -> Vec<Vec<u8>> {
        (self.lines)(config)
    }

    /// Sets the directive; on an error, a reason in Redis's words, `config` is as before.
    pub(crate) fn apply(
        &self,
        config: &mut Config,
        args: &[&[u8]],
        source: Source,
    ) -> Result<(), String> {
        if !self.multi && args.len() != 1 {
            return Err(WRONG_ARGUMENTS.into());
        }
        let Some(what) = self.traits.unbuilt else {
            return (self.apply)(config, args, source);
        };
        let mut changed = config.clone();
        (self.apply)(&mut changed, args, source)?;
        if self.text(&changed) != self.default_text() {
            return Err(format!("{what} is not built into this version of Luar"));
        }
        *config = changed;
        Ok(())
    }

    /// The default as `CONFIG GET` would answer it, for directives whose notation is plain.
    fn default_text(&self) -> &'static [u8] {
        self.default.as_bytes()
    }
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config::blank();
        for directive in DIRECTIVES {
            let default = directive.default.as_bytes();
            let words: Vec<_> = default.split(|byte| *byte == b' ').collect();
            let args = if directive.multi { &words[..] } else { &[default] };
            let source = Source::Line { first: true };
            if let Err(reason) = (directive.apply)(&mut config, args, source) {
                // Only `dir` can fail: the process may have lost its working directory.
                assert_eq!(directive.name, "dir", "{}: {reason}", directive.name);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, DIRECTIVES, lookup};
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = DIRECTIVES.iter().flat_map(|directive| directive.names()).collect();
        let unique: HashSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        for name in names {
            assert_eq!(name, name.to_ascii_lowercase());
            assert_eq!(lookup(name.to_uppercase().as_bytes()).unwrap().1, name);
        }
    }

    #[test]
    fn defaults_are_built() {
        let config = Config::default();
        assert_eq!((config.port, config.databases, config.tcp_backlog), (6379, 16, 511));
        assert_eq!(config.dir.as_path(), std::env::current_dir().unwrap());
    }

    #[test]
    fn defaults_of_unbuilt_features_are_written_as_they_are_answered() {
        let config = Config::default();
        for directive in DIRECTIVES.iter().filter(|directive| directive.traits.unbuilt.is_some()) {
            assert_eq!(directive.text(&config), directive.default.as_bytes(), "{}", directive.name);
        }
    }
}
