//! `cargo xtask bench`: Luar and a redis-server side by side in one run.
//!
//! `workloads` says what is measured, `load` generates it, `measure` alternates between the
//! servers, `report` and `plot` write what came out. Called by xtask's main.

mod load;
mod measure;
mod parallel;
mod persist;
mod plot;
mod report;
mod server;
mod wire;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use measure::Effort;
use plot::Chart;
use report::{MemoryRow, Row, Setting};
use server::{Config, Server};
use workloads::{Group, SCRIPTS, Workload};

const USAGE: &str = "usage: cargo xtask bench [options]
       cargo xtask bench persist [options]   (snapshots, files; see its --help)
  --only NAME     only workloads whose name begins with NAME, in any case; may be repeated;
                  `commands`, `scripts`, `undo`, `parallel` and `memory` name whole groups
  --pipeline N    only this depth
  --quick         shorter and fewer rounds; a first impression
  --rounds N      rounds per workload (5; quick 3)
  --workers N     Luar's workers (1 and, on more than one core, the default number)
  --redis PATH    the redis-server to compare with (redis-server)
  --luar PATH     the luar to measure (built with `cargo build --release` if not given)
  --write         write docs/benchmarks.md and the figures after a partial run, too";

/// `script-atomicity` of the servers that are compared with each other: in the first nothing can be
/// undone.
const UNDO_MODES: [&str; 2] = ["isolation", "rollback"];

struct Options {
    only: Vec<String>,
    pipeline: Option<usize>,
    quick: bool,
    rounds: Option<usize>,
    workers: Option<usize>,
    redis: PathBuf,
    luar: Option<PathBuf>,
    write: bool,
}

/// Runs the bench. Missed targets are a result; false when a server failed in a workload or the
/// servers answered differently.
///
/// # Errors
/// Bad arguments, or a server that does not start.
pub fn main(args: &[String]) -> Result<bool, String> {
    if args.first().is_some_and(|arg| arg == "persist") {
        return persist::main(&args[1..]);
    }
    let Some(options) = parse(args)? else {
        println!("{USAGE}");
        return Ok(true);
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let luar = match &options.luar {
        Some(path) => path.clone(),
        None => build_luar(&root)?,
    };
    let start = Instant::now();
    let configs = configs(&options, &luar)?;
    let effort = Effort {
        rounds: options.rounds.unwrap_or(if options.quick { 3 } else { 5 }),
        round_time: Duration::from_millis(if options.quick { 150 } else { 500 }),
        memory_items: if options.quick { 100_000 } else { 1_000_000 },
    };

    let servers = configs.iter().map(Server::start).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let mut rows = Vec::new();
    let mut failures = 0;
    for workload in selected_workloads(&options, &servers, workloads::all)? {
        failures += usize::from(!measure_row(&servers, workload, effort, &mut rows));
    }
    let partial = options.quick || !options.only.is_empty() || options.pipeline.is_some();
    let cross_check =
        if partial { Vec::new() } else { cross_check(&servers[0], &rows).into_iter().collect() };
    drop(servers);

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let measures_redis = server::is_redis(&luar)?;
    if !measures_redis {
        let modes = UNDO_MODES.map(|mode| {
            let args = vec!["--script-atomicity".to_owned(), mode.to_owned()];
            Config { name: mode.to_owned(), args, ..configs[1].clone() }
        });
        let servers = [Server::start(&modes[0])?, Server::start(&modes[1])?];
        for workload in selected_workloads(&options, &servers, workloads::undo)? {
            failures += usize::from(!measure_row(&servers, workload, effort, &mut rows));
        }
    }
    if cores > 1
        && !measures_redis
        && options.pipeline.is_none()
        && options.wants("parallel", "parallel")
    {
        match parallel::measure(&configs[1], effort.rounds, effort.round_time) {
            Ok(figure) => println!("{}; load of the machine {}", figure.line(), load_average()),
            Err(error) => {
                println!("FAILED scripts on different keys: {error}");
                failures += 1;
            }
        }
    }

    let mut memory = Vec::new();
    for load in workloads::memory_loads(effort.memory_items) {
        if options.pipeline.is_some() || !options.wants("memory", load.name) {
            continue;
        }
        let weights = match [0, 1].map(|index| measure::weight(&configs[index], &load)) {
            [Ok(redis), Ok(luar)] => [redis, luar],
            [Err(error), _] | [_, Err(error)] => {
                println!("FAILED {}: {error}", load.name);
                failures += 1;
                continue;
            }
        };
        let row = MemoryRow { name: load.name, target: load.target, weights };
        println!("{}", report::memory_line(&row));
        memory.push(row);
    }

    let verdicts: Vec<_> = rows
        .iter()
        .flat_map(Row::verdicts)
        .chain(memory.iter().flat_map(MemoryRow::verdicts))
        .collect();
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    println!("targets met: {met} of {}", verdicts.len());

    if options.write || !partial {
        let setting = Setting {
            machine: machine(),
            versions: versions(&configs)?,
            names,
            rounds: effort.rounds,
            memory_items: effort.memory_items,
            cross_check,
            minutes: start.elapsed().as_secs_f64() / 60.0,
        };
        let notes = fs::read_to_string(root.join("bench/notes.md")).unwrap_or_default();
        let page = report::page(&setting, &rows, &memory, &notes);
        write(&root.join("docs/benchmarks.md"), &page)?;
        draw(&root.join("docs"), &setting.names, &rows, &memory)?;
    }
    if failures > 0 {
        println!("{failures} could not be measured");
    }
    Ok(failures == 0)
}

impl Options {
    fn wants(&self, group: &str, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|only| only == group || name.starts_with(only))
    }
}

fn parse(args: &[String]) -> Result<Option<Options>, String> {
    let mut options = Options {
        only: Vec::new(),
        pipeline: None,
        quick: false,
        rounds: None,
        workers: None,
        redis: PathBuf::from("redis-server"),
        luar: None,
        write: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        let number = |text: &String| {
            text.parse::<usize>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{arg} needs a number above 0, not {text:?}"))
        };
        match arg.as_str() {
            "--only" => options.only.push(value()?.to_lowercase()),
            "--pipeline" => options.pipeline = Some(number(value()?)?),
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(number(value()?)?),
            "--workers" => options.workers = Some(number(value()?)?),
            "--redis" => options.redis = PathBuf::from(value()?),
            "--luar" => options.luar = Some(PathBuf::from(value()?)),
            "--write" => options.write = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown option {other}\n{USAGE}")),
        }
    }
    Ok(Some(options))
}

fn build_luar(root: &Path) -> Result<PathBuf, String> {
    let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["build", "--release", "--package", "luar"])
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("luar does not build".to_owned());
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/luar"))
}

/// Redis first. Luar with one worker compares what a command costs; with its default it shows what
/// the machine gives.
fn configs(options: &Options, luar: &Path) -> Result<Vec<Config>, String> {
    let config = |name: String, binary: &Path, workers| Config {
        name,
        binary: binary.to_path_buf(),
        workers,
        args: Vec::new(),
    };
    let mut configs = vec![config("redis".to_owned(), &options.redis, None)];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match options.workers {
        // Another Redis in Luar's place measures the noise.
        _ if server::is_redis(luar)? => configs.push(config("second redis".to_owned(), luar, None)),
        Some(workers) => {
            configs.push(config(format!("luar, {}", count_of(workers)), luar, Some(workers)));
        }
        None => {
            configs.push(config(format!("luar, {}", count_of(1)), luar, Some(1)));
            if cores > 1 {
                configs.push(config(format!("luar, {}", count_of(cores)), luar, None));
            }
        }
    }
    Ok(configs)
}

fn count_of(workers: usize) -> String {
    format!("{workers} worker{}", if workers == 1 { "" } else { "s" })
}

/// Measures a workload and says what came out; false if that failed.
fn measure_row(
    servers: &[Server],
    workload: Workload,
    effort: Effort,
    rows: &mut Vec<Row>,
) -> bool {
    let results = match measure::workload(servers, &workload, effort) {
        Ok(results) => results,
        Err(error) => {
            println!("FAILED {error}");
            return false;
        }
    };
    let Workload { name, group, pipeline, targets, .. } = workload;
    let row = Row { name, group, pipeline, targets, results };
    let names: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    println!("{}", report::line(&row, &names));
    rows.push(row);
    true
}

/// Those of a list that are wanted, once all servers know the scripts.
fn selected_workloads(
    options: &Options,
    servers: &[Server],
    list: impl FnOnce(&dyn Fn(&str) -> String) -> Vec<Workload>,
) -> Result<Vec<Workload>, String> {
    let mut shas = Vec::new();
    for script in SCRIPTS {
        let mut sha = String::new();
        for server in servers {
            let reply = server.client()?.call(&[b"SCRIPT", b"LOAD", script.body.as_bytes()])?;
            let text = String::from_utf8_lossy(&reply);
            sha = text.lines().nth(1).unwrap_or_default().to_owned();
        }
        shas.push((script.name, sha));
    }
    let sha = |name: &str| {
        let found = shas.iter().find(|(script, _)| *script == name);
        found.map(|(_, sha)| sha.clone()).expect("workloads name scripts of the list")
    };
    let mut all = list(&sha);
    all.retain(|workload| {
        let group = match workload.group {
            Group::Command => "commands",
            Group::Script => "scripts",
            Group::Undo => "undo",
        };
        options.wants(group, &workload.name)
            && options.pipeline.is_none_or(|pipeline| pipeline == workload.pipeline)
    });
    Ok(all)
}

/// What redis-benchmark says of the same Redis, beside what our generator says.
fn cross_check(redis: &Server, rows: &[Row]) -> Option<String> {
    let ours = |pipeline: usize| {
        let row = rows.iter().find(|row| row.name == "GET 16 B" && row.pipeline == pipeline)?;
        Some(row.results[0].operations_per_second)
    };
    let mut parts = Vec::new();
    for (pipeline, requests) in [(1, 100_000), (16, 1_000_000)] {
        let output = Command::new("redis-benchmark")
            .args(["-p", &redis.port.to_string(), "-t", "get", "-c", "50", "--csv"])
            .args(["-n", &requests.to_string(), "-P", &pipeline.to_string(), "-r", "100000"])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("\"GET\""))?;
        let theirs: f64 = line.split(',').nth(1)?.trim_matches('"').parse().ok()?;
        parts.push(format!(
            "{:.0} k/s against our {:.0} k/s at pipeline {pipeline}",
            theirs / 1e3,
            ours(pipeline)? / 1e3
        ));
    }
    Some(format!("redis-benchmark, GET on the same Redis: {}", parts.join(", ")))
}

fn versions(configs: &[Config]) -> Result<Vec<String>, String> {
    let mut versions = Vec::new();
    for config in configs {
        let version = server::version(&config.binary)?;
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    Ok(versions)
}

/// How busy the machine has been for a minute: this bench is part of it, other programs spoil it.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

fn draw(docs: &Path, names: &[String], rows: &[Row], memory: &[MemoryRow]) -> Result<(), String> {
    const COLOURS: [&str; 3] = [plot::REDIS, plot::LUAR, plot::LUAR_MORE];
    let series = |from: usize| -> Vec<(String, &'static str)> {
        names.iter().cloned().zip(COLOURS).skip(from).collect()
    };
    let ratios = |group: Group, ratio: &dyn Fn(&Row, usize) -> f64| -> Vec<(String, Vec<f64>)> {
        rows.iter()
            .filter(|row| row.group == group)
            .map(|row| (row.title(), (1..row.results.len()).map(|at| ratio(row, at)).collect()))
            .collect()
    };
    let mut charts = vec![
        (
            "commands-cpu",
            Chart {
                title: "Server CPU per operation, Redis = 1 (shorter is better)",
                series: series(1),
                groups: ratios(Group::Command, &Row::cpu_ratio),
                reference: Some(1.0),
                unit: "×",
                logarithmic: false,
            },
        ),
        (
            "commands-throughput",
            Chart {
                title: "Operations per second, Redis = 1 (longer is better)",
                series: series(1),
                groups: ratios(Group::Command, &Row::throughput_ratio),
                reference: Some(1.0),
                unit: "×",
                logarithmic: false,
            },
        ),
        (
            "commands-latency",
            Chart {
                title: "Latency p99, 50 connections (shorter is better)",
                series: series(0),
                groups: rows
                    .iter()
                    .filter(|row| row.group == Group::Command)
                    .map(|row| {
                        (row.title(), row.results.iter().map(|result| result.p99_us).collect())
                    })
                    .collect(),
                reference: None,
                unit: " µs",
                logarithmic: true,
            },
        ),
        (
            "scripts",
            Chart {
                title: "Scripts: speed by server CPU per run, Redis = 1 (longer is better)",
                series: series(1),
                groups: ratios(Group::Script, &|row, at| 1.0 / row.cpu_ratio(at)),
                reference: Some(1.0),
                unit: "×",
                logarithmic: true,
            },
        ),
    ];
    charts.push((
        "memory",
        Chart {
            title: "Bytes per item, by used_memory (shorter is better)",
            series: series(0).into_iter().take(2).collect(),
            groups: memory
                .iter()
                .map(|row| {
                    let weights = row.weights.iter().map(|weight| weight.used_memory).collect();
                    (row.name.to_owned(), weights)
                })
                .collect(),
            reference: None,
            unit: " B",
            logarithmic: false,
        },
    ));
    for (name, chart) in charts {
        if !chart.groups.is_empty() {
            write(&docs.join(format!("bench-{name}.svg")), &plot::bars(&chart))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
