//! A command's arguments as manual pages write them, from the syntax line of its row.

use command::syntax::{self, Argument, Kind};
use server::table::Registered;

/// `SET key value [NX | XX] …`.
pub fn line(found: &Registered) -> String {
    let mut words = vec![found.full_name.replace('|', " ").to_ascii_uppercase()];
    words.extend(arguments(found).iter().map(argument));
    words.join(" ")
}

/// Every row parses: a test of the server's says so.
pub fn arguments(found: &Registered) -> Vec<Argument> {
    syntax::parse(found.row.syntax, found.row.keys.len()).unwrap_or_default()
}

fn argument(of: &Argument) -> String {
    let inner = match of.kind {
        Kind::PureToken => String::new(),
        Kind::OneOf => {
            let choices: Vec<String> = of.arguments.iter().map(argument).collect();
            let choices = choices.join(" | ");
            if of.optional && of.token.is_none() { choices } else { format!("({choices})") }
        }
        Kind::Block => of.arguments.iter().map(argument).collect::<Vec<_>>().join(" "),
        _ => of.display.clone().unwrap_or_else(|| of.name.clone()),
    };
    let words: Vec<&str> = [of.token.as_deref().unwrap_or_default(), inner.as_str()]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect();
    let once = words.join(" ");
    let again = if of.multiple_token { once.clone() } else { inner };
    let all = if of.multiple { format!("{once} [{again} ...]") } else { once };
    if of.optional { format!("[{all}]") } else { all }
}
