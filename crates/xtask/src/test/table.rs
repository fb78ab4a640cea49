//! The table test: every row of `COMMAND` agrees with Redis.
//!
//! Compares arity, flags, keys, ACL categories, tips and key specs of every command that luar
//! and the oracle have in common. `tests/table/differences.txt` lists what 7.2 changed, and
//! each line of it must still be true. A reference table with newer commands is compared as
//! well when it lies beside the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use testkit::server::Server;
use testkit::value::Value;

use super::install;
use super::{Tally, Wish};
use crate::talk::root;

const FIELDS: [&str; 6] = ["arity", "flags", "keys", "acl", "tips", "key_specs"];

/// The fields of one command, each as one line of text.
type Row = BTreeMap<&'static str, String>;
type Table = BTreeMap<String, Row>;

struct Difference {
    command: String,
    field: String,
    ours: String,
    used: bool,
}

pub fn run(wish: &Wish) -> Result<Tally, String> {
    install::package("redis-server", "redis-server")?;
    let ours = fetch(&wish.binary())?;
    let redis = fetch(Path::new("redis-server"))?;
    let mut differences = differences()?;
    let mut tally = Tally::default();
    for (name, row) in &ours {
        let Some(theirs) = redis.get(name) else { continue };
        tally.add(compare(name, row, theirs, "redis", &mut differences));
    }
    for unused in differences.iter().filter(|d| !d.used && ours.contains_key(&d.command)) {
        println!("differences.txt: {} {} is not different", unused.command, unused.field);
        tally.failed += 1;
    }
    match reference_path() {
        Some(path) => tally.add(against_reference(&ours, &path, &mut differences)?),
        None => println!("no reference table beside the repository: only Redis was compared"),
    }
    Ok(tally)
}

fn compare(
    name: &str,
    ours: &Row,
    theirs: &Row,
    whose: &str,
    differences: &mut [Difference],
) -> Tally {
    let mut tally = Tally::default();
    for field in FIELDS {
        let (our, their) = (&ours[field], &theirs[field]);
        let listed =
            differences.iter_mut().find(|listed| listed.command == name && listed.field == field);
        let wanted = match listed {
            Some(listed) => {
                listed.used |= listed.ours != *their;
                listed.ours.clone()
            }
            None => their.clone(),
        };
        if *our != wanted {
            println!("{name} {field}: ours is [{our}], {whose} has [{wanted}]");
        }
        tally.add(Tally::of(*our == wanted));
    }
    tally
}

/// All rows of a server's COMMAND, subcommands included.
fn fetch(binary: &Path) -> Result<Table, String> {
    let server = Server::start::<&str>(binary, &[]).map_err(|error| error.to_string())?;
    let mut client = server.connect().map_err(|error| error.to_string())?;
    let reply = client.call(&["COMMAND"]).map_err(|error| error.to_string())?;
    let rows = reply.elements().ok_or_else(|| format!("COMMAND answered {}", reply.to_talk()))?;
    let mut table = Table::new();
    for row in rows {
        add_row(row, &mut table)?;
    }
    Ok(table)
}

fn add_row(row: &Value, table: &mut Table) -> Result<(), String> {
    let broken = || format!("a row of COMMAND is {}", row.to_talk());
    let Some([name, arity, flags, first, last, step, acl, tips, specs, subcommands]) =
        row.elements()
    else {
        return Err(broken());
    };
    let name = name.text().ok_or_else(broken)?;
    let number = |value: &Value| value.integer().map(|n| n.to_string()).ok_or_else(broken);
    let keys = [number(first)?, number(last)?, number(step)?].join(" ");
    let mut spec_lines: Vec<String> = Vec::new();
    for spec in specs.elements().ok_or_else(broken)? {
        spec_lines.push(spec_line(spec).ok_or_else(broken)?);
    }
    let fields = Row::from([
        ("arity", number(arity)?),
        ("flags", words(flags)),
        ("keys", keys),
        ("acl", words(acl)),
        ("tips", words(tips)),
        ("key_specs", spec_lines.join("; ")),
    ]);
    table.insert(name, fields);
    for subcommand in subcommands.elements().unwrap_or_default() {
        add_row(subcommand, table)?;
    }
    Ok(())
}

fn words(list: &Value) -> String {
    let mut words: Vec<String> =
        list.elements().unwrap_or_default().iter().filter_map(Value::text).collect();
    words.sort();
    words.join(" ")
}

/// The value after a name in a flat list of pairs.
fn field<'a>(pairs: &'a Value, name: &str) -> Option<&'a Value> {
    let items = pairs.elements()?;
    items
        .chunks(2)
        .find(|pair| pair[0].text().as_deref() == Some(name))
        .and_then(|pair| pair.get(1))
}

/// One key spec as `flags, begin_search(index 1), find_keys(range 0 1 0)`.
fn spec_line(spec: &Value) -> Option<String> {
    let search = |name: &str, fields: &[&str]| -> Option<String> {
        let part = field(spec, name)?;
        let kind = field(part, "type")?.text()?;
        let inner = field(part, "spec")?;
        let values: Vec<String> = fields
            .iter()
            .filter_map(|name| field(inner, name))
            .map(|value| {
                value.integer().map_or_else(|| value.text().unwrap_or_default(), |n| n.to_string())
            })
            .collect();
        Some([vec![kind], values].concat().join(" "))
    };
    Some(format!(
        "{} ({}) ({})",
        words(field(spec, "flags")?),
        search("begin_search", BEGIN_FIELDS)?,
        search("find_keys", FIND_FIELDS)?
    ))
}

const BEGIN_FIELDS: &[&str] = &["index", "keyword", "startfrom"];
const FIND_FIELDS: &[&str] = &["lastkey", "keystep", "limit", "keynumidx", "firstkey"];

/// Lines `command field = value  # reason`.
fn differences() -> Result<Vec<Difference>, String> {
    let path = root().join("tests/table/differences.txt");
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let broken = || format!("differences.txt: {line}");
            let (rule, reason) = line.split_once("  # ").ok_or_else(broken)?;
            let (place, ours) = rule.split_once(" = ").ok_or_else(broken)?;
            let (command, field) = place.split_once(' ').ok_or_else(broken)?;
            if reason.is_empty() || !FIELDS.contains(&field) {
                return Err(broken());
            }
            let ours = ours.trim().trim_matches('"').to_owned();
            Ok(Difference { command: command.into(), field: field.into(), ours, used: false })
        })
        .collect()
}

fn reference_path() -> Option<PathBuf> {
    let root = root();
    ["../shared", "../../shared"]
        .iter()
        .map(|place| root.join(place).join("reference/command-table.json"))
        .find(|path| path.exists())
}

/// Compares with a table of newer servers, and asks for every command that is due.
fn against_reference(
    ours: &Table,
    path: &Path,
    differences: &mut [Difference],
) -> Result<Tally, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let json: Json = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let rows = json.as_object().ok_or("the reference table is not an object")?;
    let later = std::fs::read_to_string(root().join("tests/table/later.txt"))
        .map_err(|error| error.to_string())?;
    let later: Vec<&str> = later
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut tally = Tally::default();
    for (name, row) in rows {
        let in_redis = strings(&row["in"]).iter().any(|server| server == "redis");
        let since = row["since"].as_str().unwrap_or_default();
        let due = in_redis && !newer_than_7_2(since) && group_is_due(&row["group"]);
        match ours.get(name) {
            Some(our) => {
                let theirs = reference_row(row);
                tally.add(compare(name, our, &theirs, "the reference", differences));
                if later.contains(&name.as_str()) {
                    println!("later.txt: {name} is there");
                    tally.failed += 1;
                }
            }
            None if due && !later.contains(&name.as_str()) => {
                println!("{name} is missing");
                tally.failed += 1;
            }
            None => {}
        }
    }
    Ok(tally)
}

fn newer_than_7_2(since: &str) -> bool {
    let mut parts = since.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) > (7, 2)
}

fn group_is_due(group: &Json) -> bool {
    const GROUPS: [&str; 13] = [
        "string",
        "generic",
        "list",
        "set",
        "hash",
        "sorted-set",
        "transactions",
        "pubsub",
        "bitmap",
        "hyperloglog",
        "geo",
        "connection",
        "scripting",
    ];
    group.as_str().is_some_and(|group| GROUPS.contains(&group))
}

fn strings(list: &Json) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut words: Vec<String> =
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
    words.sort();
    words
}

fn reference_row(row: &Json) -> Row {
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let keys = row["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let search = |part: &Json, fields: &[&str]| {
        let kind = plain(&part["type"]);
        let values = fields.iter().filter_map(|name| part["spec"].get(name)).map(plain);
        [kind].into_iter().chain(values).collect::<Vec<_>>().join(" ")
    };
    let specs = row["key_specs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let specs: Vec<String> = specs
        .iter()
        .map(|spec| {
            format!(
                "{} ({}) ({})",
                strings(&spec["flags"]).join(" "),
                search(&spec["begin_search"], BEGIN_FIELDS),
                search(&spec["find_keys"], FIND_FIELDS)
            )
        })
        .collect();
    Row::from([
        ("arity", plain(&row["arity"])),
        ("flags", strings(&row["flags"]).join(" ")),
        ("keys", keys.iter().map(plain).collect::<Vec<_>>().join(" ")),
        ("acl", strings(&row["acl"]).join(" ")),
        ("tips", strings(&row["tips"]).join(" ")),
        ("key_specs", specs.join("; ")),
    ])
}
