//! What a server says of itself in INFO. Called by tests and stress tests.

use std::time::Duration;

use crate::client::Client;
use crate::poll;

/// How long something may take that writes files.
const PATIENCE: Duration = Duration::from_secs(30);

/// A field of INFO. The error says what there was instead.
pub fn field(client: &mut Client, name: &str) -> Result<String, String> {
    let reply = client.call(&["INFO"]).map_err(|error| format!("INFO: {error}"))?;
    let text = reply.text().ok_or_else(|| format!("INFO: {}", reply.to_talk()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no {name} in {text}"))
}

/// The same of one that is a number.
pub fn number(client: &mut Client, name: &str) -> Result<i64, String> {
    let value = field(client, name)?;
    value.parse().map_err(|_| format!("{name} is {value}"))
}

/// A field that must be there.
///
/// # Panics
/// If it is not.
pub fn info(client: &mut Client, name: &str) -> String {
    field(client, name).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until a field is this.
///
/// # Panics
/// If it does not become so in time.
pub fn wait_for(client: &mut Client, name: &str, value: &str) {
    let seen = poll(PATIENCE, || (info(client, name) == value).then_some(()));
    assert!(seen.is_some(), "{name} is {} and not {value}", info(client, name));
}
