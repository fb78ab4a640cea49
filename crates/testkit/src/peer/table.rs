//! The commands of a server, read from its own COMMAND and COMMAND DOCS.

use crate::client::Client;
use crate::draw::{Argument, Kind, Shape};
use crate::value::Value;

/// A command that both servers have.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: String,
    pub shape: Shape,
    /// It may block its client.
    pub blocks: bool,
    /// Scripts may not call it.
    pub no_script: bool,
}

/// All commands of a server, subcommands included and containers not.
pub fn of(client: &mut Client) -> Result<Vec<Known>, String> {
    let mut call = |words: &[&str]| client.call(words).map_err(|error| error.to_string());
    let rows = call(&["COMMAND"])?;
    let docs = call(&["COMMAND", "DOCS"])?;
    let mut table = Vec::new();
    for row in rows.elements().unwrap_or_default() {
        add(row, &docs, &[], &mut table).ok_or_else(|| format!("COMMAND: {}", row.to_talk()))?;
    }
    table.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(table)
}

fn add(row: &Value, docs: &Value, container: &[String], table: &mut Vec<Known>) -> Option<()> {
    let [name, arity, flags, .., subcommands] = row.elements()? else { return None };
    let name = name.text()?;
    let doc = field(docs, &name)?;
    let own = name.rsplit('|').next()?;
    let words = [container, &[own.to_owned()]].concat();
    let subcommands = subcommands.elements().unwrap_or_default();
    for subcommand in subcommands {
        add(subcommand, field(doc, "subcommands")?, &words, table)?;
    }
    if !subcommands.is_empty() {
        return Some(());
    }
    let has = |flag: &str| words_of(flags).any(|word| word == flag);
    let arguments = match field(doc, "arguments") {
        Some(list) => arguments(list)?,
        None => Vec::new(),
    };
    let group = field(doc, "group")?.text()?;
    table.push(Known {
        blocks: has("blocking"),
        no_script: has("noscript"),
        shape: Shape { words, group, arity: arity.integer()?, arguments },
        name,
    });
    Some(())
}

fn arguments(list: &Value) -> Option<Vec<Argument>> {
    let one = |doc: &Value| {
        let flags = field(doc, "flags");
        let has = |flag: &str| flags.is_some_and(|flags| words_of(flags).any(|word| word == flag));
        Some(Argument {
            name: field(doc, "name")?.text()?,
            kind: Kind::named(&field(doc, "type")?.text()?)?,
            token: field(doc, "token").and_then(Value::text),
            optional: has("optional"),
            multiple: has("multiple"),
            multiple_token: has("multiple_token"),
            arguments: match field(doc, "arguments") {
                Some(inner) => arguments(inner)?,
                None => Vec::new(),
            },
        })
    };
    list.elements()?.iter().map(one).collect()
}

fn words_of(list: &Value) -> impl Iterator<Item = String> {
    list.elements().unwrap_or_default().iter().filter_map(Value::text)
}

/// The value after a name in a flat list of pairs.
fn field<'a>(pairs: &'a Value, name: &str) -> Option<&'a Value> {
    let of_name = |pair: &&[Value]| pair[0].bytes() == Some(name.as_bytes());
    pairs.elements()?.chunks(2).find(of_name)?.get(1)
}
