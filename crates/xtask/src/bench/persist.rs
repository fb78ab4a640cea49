//! `cargo xtask bench persist`: what keeping the data costs, beside a redis-server.
//!
//! How latencies fare while a snapshot is taken, what memory it needs, how fast data is saved and
//! loaded, and what the append-only file costs. One server works at a time; the figures need a
//! machine that does nothing else. Called by the bench's main.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use hdrhistogram::Histogram;

use super::load::{self, Load, new_histogram};
use super::measure::median;
use super::server::{Client, Config, Directory, Server};
use super::wire::{self, Template};
use super::{build_luar, load_average, machine, versions};

const USAGE: &str = "usage: cargo xtask bench persist [options]
  --megabytes N   how much data (2048; quick 256)
  --only PART     snapshots, everysec or always; not written to the page
  --quick         shorter and fewer rounds; a first impression
  --redis PATH    the redis-server to compare with (redis-server)
  --luar PATH     the luar to measure (built with `cargo build --release` if not given)
  --write         write docs/benchmarks-persistence.md, also after a quick run";

const VALUE_BYTES: usize = 1024;
const CONNECTIONS: usize = 50;
/// Load is made in slices, so that it can end with the snapshot.
const SLICE: Duration = Duration::from_millis(500);
const SAVE_DEADLINE: Duration = Duration::from_secs(600);

struct Options {
    megabytes: u64,
    is_quick: bool,
    only: Option<String>,
    redis: PathBuf,
    luar: Option<PathBuf>,
    writes: bool,
}

impl Options {
    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }

    /// How often what is short is measured, for the median.
    fn rounds(&self) -> usize {
        if self.is_quick { 3 } else { 7 }
    }
}

/// One server's figures, of the parts that are measured.
struct Figures {
    name: String,
    snapshots: Option<Snapshots>,
    /// By `pipelines`: without a file, with `everysec`.
    rates: Vec<[f64; 2]>,
    always_per_second: Option<f64>,
}

struct Snapshots {
    idle: Latencies,
    during: Latencies,
    snapshot_seconds: f64,
    overhead_bytes: u64,
    file_bytes: u64,
    keys: u64,
    save_seconds: f64,
    load_seconds: f64,
}

struct Latencies {
    operations_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
}

const PIPELINES: [usize; 2] = [1, 16];

/// Runs all of it. Missed targets are a result.
///
/// # Errors
/// Bad arguments, or a server that fails.
pub fn main(args: &[String]) -> Result<bool, String> {
    let Some(options) = parse(args)? else {
        println!("{USAGE}");
        return Ok(true);
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let luar = match &options.luar {
        Some(path) => path.clone(),
        None => build_luar(&root)?,
    };
    let config = |name: &str, binary: &Path| Config {
        name: name.to_owned(),
        binary: binary.to_path_buf(),
        workers: None,
        args: Vec::new(),
    };
    let configs = [config("redis", &options.redis), config("luar", &luar)];
    let load_before = load_average();
    let mut all = Vec::new();
    for config in &configs {
        let snapshots = match options.has("snapshots") {
            true => Some(snapshots(&options, config, &Directory::new()?)?),
            false => None,
        };
        let name = config.name.clone();
        all.push(Figures { name, snapshots, rates: Vec::new(), always_per_second: None });
    }
    let [redis, luar] = &mut all[..] else { unreachable!("two servers") };
    append_only(&options, &configs, [redis, luar])?;
    let table = table(redis, luar);
    println!("{table}");
    if options.only.is_none() && (options.writes || !options.is_quick) {
        let mut page = String::from("# Benchmarks of persistence\n\n");
        let _ = writeln!(
            page,
            "Written by `cargo xtask bench persist`, which measures a Redis and Luar on one machine. \
             Change the bench, not this page.\n\n- {}",
            machine()
        );
        for version in versions(&configs)? {
            let _ = writeln!(page, "- {version}");
        }
        let _ = writeln!(
            page,
            "- {}{} MB of values of 1 KB that do not compress. The load is {CONNECTIONS} connections \
             that each send a command and wait for its reply: GET and SET, half and half, of random \
             keys; for the append-only file SET alone.\n\
             - Memory overhead: what the process grew by while the snapshot was taken, and what \
             pages Redis copied for its child (`rdb_last_cow_size`).\n\
             - Luar runs with its default number of workers; load of the machine before: \
             {load_before}.\n\n{table}",
            if options.is_quick { "A quick run: a first impression. " } else { "" },
            options.megabytes
        );
        let path = root.join("docs/benchmarks-persistence.md");
        fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(true)
}

fn parse(args: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options {
        megabytes: 0,
        is_quick: false,
        only: None,
        redis: PathBuf::from("redis-server"),
        luar: None,
        writes: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--megabytes" => {
                options.megabytes =
                    value()?.parse().map_err(|_| format!("{arg} needs a number\n{USAGE}"))?;
            }
            "--only" => match value()?.as_str() {
                part @ ("snapshots" | "everysec" | "always") => {
                    options.only = Some(part.to_owned());
                }
                other => return Err(format!("there is no part {other}\n{USAGE}")),
            },
            "--quick" => options.is_quick = true,
            "--redis" => options.redis = PathBuf::from(value()?),
            "--luar" => options.luar = Some(PathBuf::from(value()?)),
            "--write" => options.writes = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown option {other}\n{USAGE}")),
        }
    }
    if options.megabytes == 0 {
        options.megabytes = if options.is_quick { 256 } else { 2048 };
    }
    Ok(Some(options))
}

/// Starts a server whose files are in this directory.
fn serve(directory: &Directory, config: &Config, args: &[&str]) -> Result<Server, String> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Server::start_in(directory, &Config { args, ..config.clone() })
}

// --- snapshots -----------------------------------------------------------------------------------

fn snapshots(
    options: &Options,
    config: &Config,
    directory: &Directory,
) -> Result<Snapshots, String> {
    let keys = (options.megabytes << 20) / VALUE_BYTES as u64;
    let server = serve(directory, config, &[])?;
    fill(&server, keys)?;
    let idle_time = Duration::from_secs(if options.is_quick { 3 } else { 15 });
    println!("{}: {keys} keys are there", config.name);

    let idle = mixed(&server, keys, || Ok(false), idle_time)?;
    let mut asker = server.client()?;
    let before_bytes = server.rss_bytes()?;
    let peak_bytes = AtomicU64::new(before_bytes);
    let is_over = AtomicBool::new(false);
    let (during, snapshot_seconds) = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                peak_bytes.fetch_max(server.rss_bytes().unwrap_or(0), Ordering::AcqRel);
                // How often is looked, and nothing else.
                thread::sleep(Duration::from_millis(20));
            }
        });
        let began = Instant::now();
        let measured = asker.call(&[b"BGSAVE"]).and_then(|_| {
            let is_done = || Ok(!is_saving(&mut server.client()?)?);
            mixed(&server, keys, is_done, SAVE_DEADLINE)
        });
        is_over.store(true, Ordering::Release);
        measured.map(|during| (during, began.elapsed().as_secs_f64()))
    })?;
    let copied_bytes = info(&mut asker, "rdb_last_cow_size")?.parse().unwrap_or(0);
    let grown_bytes = peak_bytes.into_inner().saturating_sub(before_bytes);

    let saves: Result<Vec<f64>, String> =
        (0..options.rounds()).map(|_| save(&mut asker, &config.name)).collect();
    let save_seconds = median(saves?);
    let file = directory.path().join("dump.rdb");
    let file_bytes = fs::metadata(&file).map_err(|error| error.to_string())?.len();
    drop((asker, server));
    let starts: Result<Vec<f64>, String> =
        (0..options.rounds()).map(|_| start(config, directory, keys)).collect();
    let load_seconds = median(starts?);
    Ok(Snapshots {
        idle: idle.0,
        during: during.0,
        snapshot_seconds,
        overhead_bytes: copied_bytes + grown_bytes,
        file_bytes,
        keys,
        save_seconds,
        load_seconds,
    })
}

/// Saves in the background. Answers how many seconds that took.
fn save(asker: &mut Client, name: &str) -> Result<f64, String> {
    let began = Instant::now();
    asker.call(&[b"BGSAVE"])?;
    while is_saving(asker)? {
        if began.elapsed() > SAVE_DEADLINE {
            return Err(format!("{name}: BGSAVE does not end"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    match info(asker, "rdb_last_bgsave_status")?.as_str() {
        "ok" => Ok(began.elapsed().as_secs_f64()),
        _ => Err(format!("{name}: BGSAVE failed")),
    }
}

/// Starts with the file, and ends. Answers how many seconds the start took.
fn start(config: &Config, directory: &Directory, keys: u64) -> Result<f64, String> {
    let began = Instant::now();
    let server = serve(directory, config, &[])?;
    let seconds = began.elapsed().as_secs_f64();
    let size = String::from_utf8_lossy(&server.client()?.call(&[b"DBSIZE"])?).trim().to_owned();
    match size == format!(":{keys}") {
        true => Ok(seconds),
        false => Err(format!("{} has loaded {size} keys of {keys}", config.name)),
    }
}

fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// Text that does not compress.
fn value() -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let letters = (0..VALUE_BYTES).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state >> 32) as u8 % 90)
    });
    // No braces: they are slots in a template.
    letters.map(|letter| if "{}".contains(letter) { '_' } else { letter }).collect()
}

fn fill(server: &Server, keys: u64) -> Result<(), String> {
    const BATCH: u64 = 1000;
    let (mut client, value) = (server.client()?, value());
    for first in (0..keys).step_by(BATCH as usize) {
        let mut request = Vec::new();
        let last = keys.min(first + BATCH);
        for number in first..last {
            wire::encode(&mut request, &[b"SET", key(number).as_bytes(), value.as_bytes()]);
        }
        client.exchange(&request, (last - first) as usize)?;
    }
    Ok(())
}

fn info(client: &mut Client, field: &str) -> Result<String, String> {
    let reply = client.call(&[b"INFO", b"persistence"])?;
    let text = String::from_utf8_lossy(&reply).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.map(str::to_owned).ok_or_else(|| format!("INFO has no {field}"))
}

fn is_saving(client: &mut Client) -> Result<bool, String> {
    info(client, "rdb_bgsave_in_progress").map(|value| value != "0")
}

/// GET and SET in slices, until it is over or the time is.
fn mixed(
    server: &Server,
    keys: u64,
    mut is_over: impl FnMut() -> Result<bool, String>,
    time_max: Duration,
) -> Result<(Latencies, u64), String> {
    let key = format!("key:{{{keys}}}");
    let templates = [Template::new(&["GET", &key]), Template::new(&["SET", &key, &value()])];
    let (mut latency_ns, mut operations, mut elapsed) = (new_histogram(), 0, Duration::ZERO);
    let began = Instant::now();
    let mut seed = 1;
    loop {
        let measured = load::run(server.port, &slice(&templates, 1, SLICE, seed))?;
        seed += CONNECTIONS as u64;
        latency_ns.add(measured.latency_ns).map_err(|error| error.to_string())?;
        operations += measured.operations;
        elapsed += measured.elapsed;
        if began.elapsed() > time_max || is_over()? {
            return Ok((latencies(&latency_ns, operations, elapsed), operations));
        }
    }
}

fn slice(templates: &[Template], pipeline: usize, time_max: Duration, seed: u64) -> Load<'_> {
    Load { templates, connections: CONNECTIONS, pipeline, operations: u64::MAX, time_max, seed }
}

fn latencies(latency_ns: &Histogram<u64>, operations: u64, elapsed: Duration) -> Latencies {
    let at = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1e3;
    Latencies {
        operations_per_second: operations as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
    }
}

// --- the append-only file ------------------------------------------------------------------------

/// Without a file, with `everysec` and with `always`. The servers of both run at once, and one of all
/// of them works at a time.
fn append_only(
    options: &Options,
    configs: &[Config; 2],
    mut figures: [&mut Figures; 2],
) -> Result<(), String> {
    let time = Duration::from_millis(if options.is_quick { 500 } else { 2000 });
    let value = value();
    let templates = [Template::new(&["SET", "key:{100000}", &value[..256]])];
    let settings: [&[&str]; 3] = [
        &[],
        &["--appendonly", "yes", "--appendfsync", "everysec"],
        &["--appendonly", "yes", "--appendfsync", "always"],
    ];
    let mut directories = Vec::new();
    for _ in 0..configs.len() * settings.len() {
        directories.push(Directory::new()?);
    }
    let mut servers = Vec::new();
    for (config, directories) in configs.iter().zip(directories.chunks(settings.len())) {
        for (directory, settings) in directories.iter().zip(settings) {
            let args = [settings, &["--auto-aof-rewrite-percentage", "0"]].concat();
            servers.push(serve(directory, config, &args)?);
        }
    }
    let rate = |server: &Server, pipeline: usize| -> Result<f64, String> {
        let measured = load::run(server.port, &slice(&templates, pipeline, time, 1))?;
        Ok(measured.operations as f64 / measured.elapsed.as_secs_f64())
    };
    let servers: Vec<&[Server]> = servers.chunks(settings.len()).collect();
    for pipeline in PIPELINES.into_iter().filter(|_| options.has("everysec")) {
        let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        for _ in 0..options.rounds() {
            for (rates, servers) in rates.iter_mut().zip(&servers) {
                for (rates, server) in rates.iter_mut().zip(*servers) {
                    rates.push(rate(server, pipeline)?);
                }
            }
        }
        for (figures, rates) in figures.iter_mut().zip(rates) {
            figures.rates.push(rates.map(median));
        }
    }
    if options.has("always") {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..options.rounds() {
            for (rates, servers) in rates.iter_mut().zip(&servers) {
                rates.push(rate(&servers[2], 1)?);
            }
        }
        for (figures, rates) in figures.iter_mut().zip(rates) {
            figures.always_per_second = Some(median(rates));
        }
    }
    Ok(())
}

// --- the report ----------------------------------------------------------------------------------

fn table(redis: &Figures, luar: &Figures) -> String {
    let mut rows = Vec::new();
    if let (Some(redis), Some(luar)) = (&redis.snapshots, &luar.snapshots) {
        snapshot_rows(redis, luar, &mut rows);
    }
    for (at, (redis, luar)) in redis.rates.iter().zip(&luar.rates).enumerate() {
        let cost = |[without, with]: &[f64; 2]| 100.0 * (1.0 - with / without);
        let show = |rates: &[f64; 2]| {
            format!("{:.1} → {:.1} k/s, {:.1} %", rates[0] / 1e3, rates[1] / 1e3, cost(rates))
        };
        rows.push([
            format!("`everysec`, pipeline {}: rate without and with, cost", PIPELINES[at]),
            show(redis),
            show(luar),
            format!("≤ 10 %: {}", met(cost(luar) <= 10.0)),
        ]);
    }
    if let (Some(redis), Some(luar)) = (redis.always_per_second, luar.always_per_second) {
        let show = |per_second: f64| format!("{:.1} k/s", per_second / 1e3);
        let verdict = faster(luar / redis, 1.5);
        rows.push(["`always`, 50 writers".to_owned(), show(redis), show(luar), verdict]);
    }
    let mut text = format!("| | {} | {} | target |\n|---|--:|--:|---|\n", redis.name, luar.name);
    for cells in rows {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "**missed**" }
}

fn faster(ratio: f64, target: f64) -> String {
    format!("{ratio:.2}× (≥ {target}×): {}", met(ratio >= target))
}

fn snapshot_rows(redis: &Snapshots, luar: &Snapshots, rows: &mut Vec<[String; 4]>) {
    let mut row = |what: &str, show: &dyn Fn(&Snapshots) -> String, verdict: String| {
        rows.push([what.to_owned(), show(redis), show(luar), verdict]);
    };
    let latency = |latencies: &Latencies| {
        format!(
            "{:.1} k/s, {:.0}/{:.0}/{:.0}",
            latencies.operations_per_second / 1e3,
            latencies.p50_us,
            latencies.p99_us,
            latencies.p999_us
        )
    };
    row("idle: rate, p50/p99/p99.9 µs", &|it| latency(&it.idle), String::new());
    row("during a snapshot", &|it| latency(&it.during), String::new());
    let spread = |it: &Snapshots| it.during.p999_us / it.idle.p999_us;
    row(
        "p99.9 during it, by that of idle",
        &|it| format!("{:.2}×", spread(it)),
        format!("≤ 2×: {}", met(spread(luar) <= 2.0)),
    );
    let under_load = |it: &Snapshots| format!("{:.1} s", it.snapshot_seconds);
    row("time of it under load", &under_load, String::new());
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let overhead = |it: &Snapshots| format!("{:.0} MB", megabytes(it.overhead_bytes));
    row("memory overhead of it", &overhead, String::new());
    let speed = |it: &Snapshots, seconds: f64| {
        format!(
            "{:.0} MB/s, {:.2} M keys/s",
            megabytes(it.file_bytes) / seconds,
            it.keys as f64 / seconds / 1e6
        )
    };
    row(
        "saving, without load",
        &|it| speed(it, it.save_seconds),
        faster(redis.save_seconds / luar.save_seconds, 2.0),
    );
    row(
        "starting with the file",
        &|it| speed(it, it.load_seconds),
        faster(redis.load_seconds / luar.load_seconds, 2.0),
    );
}
