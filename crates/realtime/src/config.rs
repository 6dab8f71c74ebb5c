//! How the sockets are configured.

use crate::Allow;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, time::Duration};

/// What the names of personal channels begin with, and the name of their namespace.
pub(crate) const PERSONAL: &str = "#";

/// Bounds of connections, and the channel namespaces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes of one message of a client, 1024 to 1048576. A larger one ends the connection.
    pub message_bytes_max: usize,
    /// Bytes that may wait for a client that reads slowly; beyond it the connection ends with
    /// 3008, and the client recovers what it missed.
    pub queue_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Connections of one principal to a node, at least 1.
    pub connections_per_user_max: usize,
    /// Connections of one tenant to a node, at least 1; one more is closed with 3504.
    pub connections_per_tenant_max: usize,
    /// What becomes of one connection of a principal more.
    pub when_full: WhenFull,
    /// Streams of clients without a WebSocket at a time; one more is answered `503 overloaded`.
    /// One HTTP/2 connection may hold many, so that `edge.connections_max` does not bound them.
    pub streams_max: usize,
    /// Connections that open in a second, 1 to 1000000; more wait for up to 5 s, and are then
    /// told to come back.
    pub open_rate: u32,
    /// Connections that a node closes in a second when it shuts down, 1 to 1000000, or as many as
    /// it takes to close all within half of `shutdown.drain`.
    pub close_rate: u32,
    /// How long a client may take to send `connect`.
    #[serde(with = "types::duration")]
    pub connect_timeout: Duration,
    /// Time between pings.
    #[serde(with = "types::duration")]
    pub ping_interval: Duration,
    /// How long a client may take to answer a ping, less than `ping_interval`.
    #[serde(with = "types::duration")]
    pub pong_timeout: Duration,
    /// How long a client may take to take what was written to it.
    #[serde(with = "types::duration")]
    pub write_timeout: Duration,
    /// Publications that a client may recover after it was away; beyond it, and beyond half of
    /// `queue_bytes_max`, it is told that it lost some.
    pub recover_max: usize,
    /// Bytes of memory for the histories of the live tier; those that nobody has used for longest
    /// make room for others.
    pub live_bytes_max: usize,
    /// How long somebody is taken to be present after the node that holds the connection was
    /// last heard of, 1 s to 1 h. Presence is renewed three times as often.
    #[serde(with = "types::duration")]
    pub presence_ttl: Duration,
    /// Origins that browsers may connect from; empty: any, since no credential travels by
    /// itself with a socket or a stream.
    pub origins: Vec<String>,
    /// Whether each connection is subscribed to its principal's own channel: `#ann` for the
    /// user `ann`, `#agent/scout` for the agent `scout`.
    pub personal_channels: bool,
    /// Namespaces: the part of a channel's name before its first `:`.
    pub namespaces: Vec<Namespace>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024,
            queue_bytes_max: 1024 * 1024,
            subscriptions_max: 256,
            connections_per_user_max: 1_000,
            connections_per_tenant_max: 100_000,
            when_full: WhenFull::Refuse,
            streams_max: 10_000,
            open_rate: 2_000,
            close_rate: 2_000,
            connect_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            write_timeout: Duration::from_secs(10),
            recover_max: 1_000,
            live_bytes_max: 256 * 1024 * 1024,
            presence_ttl: Duration::from_secs(60),
            origins: Vec::new(),
            personal_channels: false,
            namespaces: Vec::new(),
        }
    }
}

impl Config {
    /// Refuses impossible values.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if !(1024..=1024 * 1024).contains(&self.message_bytes_max) {
            return Err("`message_bytes_max` must be 1024 to 1048576".into());
        }
        if self.queue_bytes_max < self.message_bytes_max {
            return Err("`queue_bytes_max` must not be below `message_bytes_max`".into());
        }
        for (name, rate) in [("open_rate", self.open_rate), ("close_rate", self.close_rate)] {
            if !(1..=1_000_000).contains(&rate) {
                return Err(format!("`{name}` must be 1 to 1000000"));
            }
        }
        for (name, most) in [
            ("connections_per_user_max", self.connections_per_user_max),
            ("connections_per_tenant_max", self.connections_per_tenant_max),
        ] {
            if most == 0 {
                return Err(format!("`{name}` must be at least 1"));
            }
        }
        if self.pong_timeout >= self.ping_interval {
            return Err("`pong_timeout` must be below `ping_interval`".into());
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.presence_ttl) {
            return Err("`presence_ttl` must be 1s to 1h".into());
        }
        for namespace in &self.namespaces {
            let name = namespace.name.as_str();
            if name == "state" {
                return Err("the namespace `state` is reserved for documents".into());
            }
            if name == "tiers" {
                return Err("the namespace `tiers` is reserved for the moves of documents".into());
            }
            if name == "mailbox" {
                return Err("the namespace `mailbox` is reserved for mailboxes".into());
            }
            if name.starts_with('$') {
                return Err(format!("the namespace `{name}` is reserved: it begins with `$`"));
            }
            if namespace.history_ttl.is_some_and(|ttl| ttl < Duration::from_secs(1)) {
                return Err(format!("`history_ttl` of the namespace `{name}` must be at least 1s"));
            }
            namespace.check_map()?;
            if name.contains(':') || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic())
            {
                return Err(format!(
                    "`{name}` is not a namespace: at most 64 visible characters, no `:`"
                ));
            }
        }
        Ok(())
    }

    /// Whether entries of some maps end by themselves.
    #[must_use]
    pub fn has_ending_entries(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.entry_ttl.is_some())
    }

    /// Whether those who leave some channels are told of.
    #[must_use]
    pub fn tells_who_leaves(&self) -> bool {
        let tells = |held: &Namespace| held.presence_map || held.join_leave != JoinLeave::Off;
        self.namespaces.iter().any(tells)
    }

    /// The namespace of a channel; channels of a namespace that is not configured are unknown.
    #[must_use]
    pub fn namespace(&self, channel: &str) -> Option<Cow<'_, Namespace>> {
        let name = if channel.starts_with(PERSONAL) {
            PERSONAL
        } else {
            channel.split_once(':').map_or("", |(name, _)| name)
        };
        let configured = self.namespaces.iter().find(|namespace| namespace.name == name);
        configured.map(Cow::Borrowed).or_else(|| match name {
            "" => Some(Cow::Owned(Namespace::default())),
            PERSONAL => {
                let publish = Allow::Nobody;
                Some(Cow::Owned(Namespace { publish, ..Namespace::default() }))
            }
            _ => None,
        })
    }
}

/// What holds for the channels of a namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Namespace {
    /// Its name; empty for channels without a `:`, `#` for personal ones; these two exist even
    /// if they are not configured.
    pub name: String,
    /// Whether clients may subscribe. Those with a token for the channel may in any case.
    pub subscribe: Allow,
    /// Whether clients may publish. Services always may.
    pub publish: Allow,
    /// Who may read the history; those who may subscribe, unless it says otherwise.
    pub read_history: Option<Allow>,
    /// Who may ask who is subscribed; likewise.
    pub see_presence: Option<Allow>,
    /// Whether callers without a credential may do what others may.
    pub anonymous: bool,
    /// Whether the channels are maps: entries by key, which clients keep the same as here.
    /// `history_size` and `history_ttl` do not apply to them, but `state.history_max`; they are
    /// durable.
    pub map: bool,
    /// How long an entry of a map lives after it was written last, 1 s to 365 d; until it is
    /// removed, if this is left out. Whoever writes it may say less.
    #[serde(deserialize_with = "types::duration::optional")]
    pub entry_ttl: Option<Duration>,
    /// Publications that a channel keeps; 0: none, and then nothing can be recovered.
    pub history_size: u64,
    /// How long they are kept after the last one, 1 s or more; forever, or until there is no
    /// more room for them, if this is left out.
    #[serde(
        deserialize_with = "types::duration::optional",
        serialize_with = "types::duration::serialize_optional"
    )]
    pub history_ttl: Option<Duration>,
    /// What they outlive; `live`, if this is left out. A map is `durable`, and nothing else.
    pub tier: Option<Tier>,
    /// What is recovered.
    pub recovery: Recovery,
    /// Whether clients that ask for it are told what differs from the last publication.
    pub delta: bool,
    /// Whether subscribers may choose publications by their tags.
    pub filter: bool,
    /// What becomes of publications for a client that reads slowly.
    pub slow: Slow,
    /// Whether it is known who is subscribed.
    pub presence: bool,
    /// Whether those who are subscribed are maps to follow: `$clients:CHANNEL` by connection, and
    /// `$users:CHANNEL` by principal. Comes with `presence`.
    pub presence_map: bool,
    /// Who is told of those who come and go.
    pub join_leave: JoinLeave,
}

impl Namespace {
    /// Refuses what no map has, and what maps alone have.
    fn check_map(&self) -> Result<(), String> {
        let Self { name, map, entry_ttl, tier, .. } = self;
        let day = Duration::from_secs(24 * 3600);
        match (entry_ttl, tier) {
            (Some(_), _) if !map => {
                Err(format!("`entry_ttl` of the namespace `{name}` is for maps: set `map = true`"))
            }
            (Some(ttl), _) if !(Duration::from_secs(1)..=365 * day).contains(ttl) => {
                Err(format!("`entry_ttl` of the namespace `{name}` must be 1s to 365d"))
            }
            (_, Some(Tier::Live | Tier::Hot)) if *map => Err(format!(
                "the namespace `{name}` is a map, and maps are durable: leave `tier` out; \
                 `entry_ttl` bounds how long entries are kept"
            )),
            _ => Ok(()),
        }
    }
}

/// What publications outlive, and so when one is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Connections, and an orderly restart of the node: they are in its memory. Where several
    /// nodes share their stores: as `hot`.
    #[default]
    Live,
    /// The node, as far as `stores.hot` has it.
    Hot,
    /// The node, as far as `stores.durable` has it.
    Durable,
}

/// What a client recovers that comes back to a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// All that it missed, or nothing.
    #[default]
    Stream,
    /// The newest publication: the channel is a value, of which older ones are of no use.
    Cache,
}

/// What becomes of the connection of a principal that has as many as may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It is closed with 3504, and those that are there stay.
    #[default]
    Refuse,
    /// It takes the place of the oldest, which is closed with 3503.
    CloseOldest,
}

/// What becomes of publications for a client that reads slowly, once half of its connection's
/// queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slow {
    /// They are queued; when the queue is full the connection ends with 3008, and the client
    /// comes back and recovers.
    #[default]
    Disconnect,
    /// The subscription ends with 2500, and the client begins it again and recovers; what else
    /// the connection carries goes on.
    Resubscribe,
    /// Only the newest of the channel is kept for it, as of a value; of a map, the newest of each
    /// key.
    Conflate,
}

/// Who is told of those who come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinLeave {
    /// Nobody.
    #[default]
    Off,
    /// Subscribers that ask for it.
    Asked,
    /// Every subscriber.
    All,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            name: String::new(),
            subscribe: Allow::Everybody,
            publish: Allow::Everybody,
            read_history: None,
            see_presence: None,
            anonymous: false,
            map: false,
            entry_ttl: None,
            history_size: 100,
            history_ttl: None,
            tier: None,
            recovery: Recovery::Stream,
            delta: false,
            filter: false,
            slow: Slow::Disconnect,
            presence: false,
            presence_map: false,
            join_leave: JoinLeave::Off,
        }
    }
}
