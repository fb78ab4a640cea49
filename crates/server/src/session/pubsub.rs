//! SUBSCRIBE, PUBLISH and their kin.

use std::sync::atomic::Ordering;

use command::keys::{KeySpec, key_flag as k};
use command::row::flag::{FAST, LOADING, MAY_REPLICATE, NOSCRIPT, PUBSUB, STALE};
use command::{Command, Error, Group, Result, Row};
use hashbrown::HashSet;
use resp::{Protocol, Reply};

use crate::client::{Client, ClientInfo, Subscriptions};
use crate::pubsub::Kind;
use crate::request::{Origin, Request, SessionHandler, row};
use crate::worker::WorkerLoop;

const GROUP: Group = Group::PubSub;
const LISTEN: u32 = PUBSUB | NOSCRIPT | LOADING | STALE;
const SEND: u32 = PUBSUB | LOADING | STALE | FAST | MAY_REPLICATE;
const SHARD_CHANNEL: &[KeySpec] = &[KeySpec::first(k::NOT_KEY)];
const SHARD_CHANNELS: &[KeySpec] = &[KeySpec::all(k::NOT_KEY)];

pub const TABLE: &[Command<SessionHandler>] = &[
    row(GROUP, "subscribe", -2, subscribe)
        .flags(LISTEN)
        .since("2.0.0")
        .complexity("O(N) in the channels")
        .summary("Listens to channels.")
        .syntax("channel [channel ...]"),
    row(GROUP, "unsubscribe", -1, unsubscribe)
        .flags(LISTEN)
        .since("2.0.0")
        .complexity("O(N) in the channels")
        .summary("Stops listening to channels, or to all.")
        .syntax("[channel [channel ...]]"),
    row(GROUP, "psubscribe", -2, psubscribe)
        .flags(LISTEN)
        .since("2.0.0")
        .complexity("O(N) in the patterns")
        .summary("Listens to all channels that match patterns.")
        .syntax("pattern [pattern ...]"),
    row(GROUP, "punsubscribe", -1, punsubscribe)
        .flags(LISTEN)
        .since("2.0.0")
        .complexity("O(N) in the patterns")
        .summary("Stops listening to patterns, or to all.")
        .syntax("[pattern [pattern ...]]"),
    row(GROUP, "ssubscribe", -2, ssubscribe)
        .flags(LISTEN)
        .keys(SHARD_CHANNELS)
        .since("7.0.0")
        .complexity("O(N) in the channels")
        .summary("Listens to shard channels.")
        .syntax("shardchannel [shardchannel ...]"),
    row(GROUP, "sunsubscribe", -1, sunsubscribe)
        .flags(LISTEN)
        .keys(SHARD_CHANNELS)
        .since("7.0.0")
        .complexity("O(N) in the channels")
        .summary("Stops listening to shard channels, or to all.")
        .syntax("[shardchannel [shardchannel ...]]"),
    row(GROUP, "publish", 3, publish)
        .flags(SEND)
        .since("2.0.0")
        .complexity("O(N+M), N listeners and M patterns in all")
        .summary("Sends a message to a channel.")
        .syntax("channel message"),
    row(GROUP, "spublish", 3, spublish)
        .flags(SEND)
        .keys(SHARD_CHANNEL)
        .since("7.0.0")
        .complexity("O(N) in the listeners")
        .summary("Sends a message to a shard channel.")
        .syntax("shardchannel message"),
    Command::container(
        GROUP,
        "pubsub",
        -2,
        &[
            row(GROUP, "channels", -2, channels)
                .flags(PUBSUB | LOADING | STALE)
                .since("2.8.0")
                .complexity("O(N) in the channels with listeners")
                .summary("Lists channels with listeners.")
                .syntax("[pattern]"),
            row(GROUP, "numpat", 2, numpat)
                .flags(PUBSUB | LOADING | STALE)
                .since("2.8.0")
                .summary("Counts the patterns that are listened to."),
            row(GROUP, "numsub", -2, numsub)
                .flags(PUBSUB | LOADING | STALE)
                .since("2.8.0")
                .complexity("O(N) in the channels asked for")
                .summary("Counts the listeners of channels.")
                .syntax("[channel [channel ...]]"),
            row(GROUP, "shardchannels", -2, shardchannels)
                .flags(PUBSUB | LOADING | STALE)
                .since("7.0.0")
                .complexity("O(N) in the shard channels with listeners")
                .summary("Lists shard channels with listeners.")
                .syntax("[pattern]"),
            row(GROUP, "shardnumsub", -2, shardnumsub)
                .flags(PUBSUB | LOADING | STALE)
                .since("7.0.0")
                .complexity("O(N) in the channels asked for")
                .summary("Counts the listeners of shard channels.")
                .syntax("[shardchannel [shardchannel ...]]"),
            row(GROUP, "help", 2, help)
                .flags(LOADING | STALE)
                .categories(0)
                .since("6.2.0")
                .summary("Says what PUBSUB can do."),
        ],
    )
    .categories(0)
    .since("2.8.0")
    .complexity("Depends on subcommand.")
    .summary("Holds the commands about who listens."),
];

/// A message that leaves when the transaction it was sent in is over.
pub struct Publication {
    pub shard: bool,
    pub channel: Box<[u8]>,
    pub message: Box<[u8]>,
}

impl Publication {
    pub fn memory_bytes(&self) -> usize {
        size_of::<Publication>() + self.channel.len() + self.message.len()
    }
}

/// What a RESP2 client may send while it listens.
pub fn allowed_while_subscribed(row: &Row) -> bool {
    matches!(
        row.name,
        "ping"
            | "subscribe"
            | "unsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "ssubscribe"
            | "sunsubscribe"
            | "quit"
            | "reset"
    )
}

impl Kind {
    fn words(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Kind::Channel => (b"subscribe", b"unsubscribe"),
            Kind::Pattern => (b"psubscribe", b"punsubscribe"),
            Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
        }
    }

    fn of(self, subscriptions: &mut Subscriptions) -> &mut HashSet<Box<[u8]>> {
        match self {
            Kind::Channel => &mut subscriptions.channels,
            Kind::Pattern => &mut subscriptions.patterns,
            Kind::Shard => &mut subscriptions.shard_channels,
        }
    }

    /// The number confirmations carry: channels and patterns are counted together.
    fn count(self, subscriptions: &Subscriptions) -> usize {
        match self {
            Kind::Shard => subscriptions.shard_channels.len(),
            _ => subscriptions.count(),
        }
    }
}

fn confirm(reply: &mut Reply<'_>, word: &[u8], name: Option<&[u8]>, count: usize) {
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count as i64);
}

/// A name in the set of the client, and its part of the server's.
fn taken_by(name: &[u8]) -> usize {
    name.len() + size_of::<Box<[u8]>>() + size_of::<usize>()
}

fn note_counts(info: &ClientInfo, subscriptions: &Subscriptions) {
    info.subscriptions.store(subscriptions.channels.len(), Ordering::Relaxed);
    info.patterns.store(subscriptions.patterns.len(), Ordering::Relaxed);
    info.shard_subscriptions.store(subscriptions.shard_channels.len(), Ordering::Relaxed);
}

fn listen(request: &mut Request<'_, '_>, kind: Kind, names: &[&[u8]]) -> Result {
    // A transaction's reply is one array, into which a RESP2 listener's messages would not fit.
    if request.origin == Origin::Exec && request.client.protocol == Protocol::Resp2 {
        let name = std::str::from_utf8(kind.words().0).unwrap_or_default().to_ascii_uppercase();
        return Err(Error::new(format!("ERR {name} isn't allowed for a DENY BLOCKING client")));
    }
    for name in names {
        let client = &mut *request.client;
        if kind.of(&mut client.subscriptions).insert(Box::from(*name)) {
            client.info.subscribed_bytes.fetch_add(taken_by(name), Ordering::Relaxed);
            request.lp.server.pubsub.subscribe(kind, name, &client.info);
        }
        let count = kind.count(&client.subscriptions);
        confirm(&mut request.reply, kind.words().0, Some(name), count);
    }
    note_counts(&request.client.info, &request.client.subscriptions);
    Ok(())
}

fn stop(request: &mut Request<'_, '_>, kind: Kind, names: &[&[u8]]) -> Result {
    let client = &mut *request.client;
    let all: Vec<Box<[u8]>> = match names {
        [] => kind.of(&mut client.subscriptions).iter().cloned().collect(),
        names => names.iter().map(|name| Box::from(*name)).collect(),
    };
    for name in &all {
        if kind.of(&mut client.subscriptions).remove(name) {
            client.info.subscribed_bytes.fetch_sub(taken_by(name), Ordering::Relaxed);
            request.lp.server.pubsub.unsubscribe(kind, name, client.info.id);
        }
        let count = kind.count(&client.subscriptions);
        confirm(&mut request.reply, kind.words().1, Some(name), count);
    }
    if all.is_empty() {
        let count = kind.count(&client.subscriptions);
        confirm(&mut request.reply, kind.words().1, None, count);
    }
    note_counts(&client.info, &client.subscriptions);
    Ok(())
}

/// Ends all subscriptions without a word: RESET, or the client is gone.
pub fn unsubscribe_all(lp: &WorkerLoop, client: &mut Client) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in std::mem::take(kind.of(&mut client.subscriptions)) {
            lp.server.pubsub.unsubscribe(kind, &name, client.info.id);
        }
    }
    client.info.subscribed_bytes.store(0, Ordering::Relaxed);
    note_counts(&client.info, &client.subscriptions);
}

fn subscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    listen(request, Kind::Channel, &args[1..])
}

fn psubscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    listen(request, Kind::Pattern, &args[1..])
}

fn ssubscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    listen(request, Kind::Shard, &args[1..])
}

fn unsubscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    stop(request, Kind::Channel, &args[1..])
}

fn punsubscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    stop(request, Kind::Pattern, &args[1..])
}

fn sunsubscribe(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    stop(request, Kind::Shard, &args[1..])
}

/// Queues a message; it leaves when the transaction commits.
fn send(request: &mut Request<'_, '_>, shard: bool, channel: &[u8], message: &[u8]) -> Result {
    let receivers = request.lp.server.pubsub.receivers(shard, channel);
    let mut outbox = request.lp.outbox.borrow_mut();
    if request.txn.is_heard() && !outbox.is_trial() {
        request.txn.say(shard, channel, message);
    } else if receivers > 0 || outbox.is_trial() {
        let publication =
            Publication { shard, channel: Box::from(channel), message: Box::from(message) };
        outbox.publish(publication);
    }
    if !outbox.is_trial() {
        request.lp.server.stats.published.fetch_add(1, Ordering::Relaxed);
    }
    request.reply.integer(receivers as i64);
    Ok(())
}

/// Sends what the transaction that just ended has published.
pub fn deliver(lp: &WorkerLoop) {
    for publication in crate::outbox::empty(&lp.outbox) {
        let Publication { shard, channel, message } = publication;
        lp.server.pubsub.publish(shard, &channel, &message, &lp.server.mailboxes);
    }
}

fn publish(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    send(request, false, args[1], args[2])
}

fn spublish(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    send(request, true, args[1], args[2])
}

fn list(request: &mut Request<'_, '_>, kind: Kind, args: &[&[u8]]) -> Result {
    if args.len() > 3 {
        return Err(Error::new(format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
            String::from_utf8_lossy(args[1])
        )));
    }
    let names = request.lp.server.pubsub.names(kind, args.get(2).copied());
    request.reply.array(names.len());
    names.iter().for_each(|name| request.reply.bulk(name));
    Ok(())
}

fn channels(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    list(request, Kind::Channel, args)
}

fn shardchannels(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    list(request, Kind::Shard, args)
}

fn count_listeners(request: &mut Request<'_, '_>, kind: Kind, names: &[&[u8]]) -> Result {
    request.reply.array(2 * names.len());
    for name in names {
        request.reply.bulk(name);
        let count = request.lp.server.pubsub.listeners(kind, name);
        request.reply.integer(count as i64);
    }
    Ok(())
}

fn numsub(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    count_listeners(request, Kind::Channel, &args[2..])
}

fn shardnumsub(request: &mut Request<'_, '_>, args: &[&[u8]]) -> Result {
    count_listeners(request, Kind::Shard, &args[2..])
}

fn numpat(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    let count = request.lp.server.pubsub.count(Kind::Pattern);
    request.reply.integer(count as i64);
    Ok(())
}

fn help(request: &mut Request<'_, '_>, _: &[&[u8]]) -> Result {
    command::help::write(
        &mut request.reply,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Channels with listeners, those that match the pattern if there is one.",
            "NUMPAT",
            "    How many patterns are listened to.",
            "NUMSUB [<channel> ...]",
            "    How many listen to each channel.",
            "SHARDCHANNELS [<pattern>]",
            "    Shard channels with listeners.",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    How many listen to each shard channel.",
        ],
    );
    Ok(())
}
