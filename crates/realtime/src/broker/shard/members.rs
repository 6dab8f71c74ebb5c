//! Those who are subscribed to a channel as a map, which a shard keeps the same as the store's
//! presence.
//!
//! Who comes and goes is read from the presence partition's stream. That stream is short, and does
//! not tell of connections whose node died; so the map is compared with the records after a gap,
//! and every so often.

use super::{Feed, READ, Shard};
use crate::{
    broker::{Start, problem},
    channel::{By, Channel},
    presence::{self, JOINS, Joined},
};
use protocol::{
    Code, Problem,
    client::{ClientInfo, Publication},
};
use std::collections::{BTreeMap, HashMap};
use store::{Partition, Position, SharedStore};

const PAGE: usize = 1_000;

/// A map of members.
pub(super) struct Members {
    pub(super) partition: Partition,
    by: By,
    position: Position,
    /// The last entry of the stream that the map shows.
    last: u64,
    clients: BTreeMap<String, ClientInfo>,
    /// How many connections of a principal are among them.
    users: HashMap<String, usize>,
}

impl Members {
    fn new(partition: Partition, by: By) -> Self {
        let (clients, users) = (BTreeMap::new(), HashMap::new());
        Self { partition, by, position: Position::ZERO, last: 0, clients, users }
    }

    /// The entry of a member.
    fn entry(&self, info: &ClientInfo) -> Publication {
        match self.by {
            By::Client => Publication {
                key: info.client.clone(),
                info: Some(info.clone()),
                ..Publication::default()
            },
            By::User => Publication { key: info.user.clone(), ..Publication::default() },
        }
    }

    /// All entries, each once.
    fn all(&self) -> Vec<Publication> {
        match self.by {
            By::Client => self.clients.values().map(|info| self.entry(info)).collect(),
            By::User => {
                let user =
                    |key: &String| Publication { key: key.clone(), ..Publication::default() };
                self.users.keys().map(user).collect()
            }
        }
    }

    /// Somebody came, or is another one than was known; the update that makes, if any.
    fn enter(&mut self, info: ClientInfo) -> Option<Publication> {
        let entry = self.entry(&info);
        if let Some(known) = self.clients.get_mut(&info.client) {
            let differs = *known != info;
            *known = info;
            return (differs && self.by == By::Client).then_some(entry);
        }
        let held = self.users.entry(info.user.clone()).or_default();
        *held += 1;
        let is_first = *held == 1;
        self.clients.insert(info.client.clone(), info);
        (self.by == By::Client || is_first).then_some(entry)
    }

    /// Somebody went; likewise.
    fn leave(&mut self, client: &str) -> Option<Publication> {
        let info = self.clients.remove(client)?;
        let left = self.users.get_mut(&info.user).map(|held| {
            *held -= 1;
            *held
        });
        let is_last = left == Some(0);
        if is_last {
            self.users.remove(&info.user);
        }
        let removed = Publication { removed: true, info: None, ..self.entry(&info) };
        (self.by == By::Client || is_last).then_some(removed)
    }

    fn apply(&mut self, joined: Joined) -> Option<Publication> {
        match joined {
            Joined::Join(info) => self.enter(info),
            Joined::Leave(info) => self.leave(&info.client),
        }
    }

    /// Makes the map what the store holds; the updates that makes.
    async fn compare(&mut self, store: &SharedStore) -> Result<Vec<Publication>, store::Error> {
        // The head first: the records show what it tells of, or more.
        let head = store.head(&self.partition).await?;
        let last = head.as_ref().map_or(0, |head| head.last(&JOINS));
        let mut there = HashMap::new();
        let mut after = Some(presence::before_present());
        loop {
            let page = store.scan(&self.partition, b"", after.as_ref(), PAGE).await?;
            for (_, record) in &page.records {
                if let Ok(info) = presence::present(&record.value) {
                    there.insert(info.client.clone(), info);
                }
            }
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                break;
            }
        }
        self.position = head.map_or(Position::ZERO, |head| head.position);
        self.last = last;
        let gone = self.clients.keys().filter(|client| !there.contains_key(*client));
        let gone: Vec<String> = gone.cloned().collect();
        let mut updates: Vec<_> = gone.iter().filter_map(|client| self.leave(client)).collect();
        updates.extend(there.into_values().filter_map(|info| self.enter(info)));
        Ok(updates)
    }

    /// Adds the updates since the last time, by the stream if that is possible. Those that are
    /// added when an error comes are shown by the map already.
    async fn catch_up(
        &mut self,
        store: &SharedStore,
        updates: &mut Vec<Publication>,
    ) -> Result<(), store::Error> {
        let Some(head) = store.head(&self.partition).await? else { return Ok(()) };
        if head.position.incarnation != self.position.incarnation {
            updates.extend(self.compare(store).await?);
            return Ok(());
        }
        loop {
            let entries = match store.read(&self.partition, &JOINS, self.last + 1, READ).await {
                Ok(entries) => entries,
                Err(store::Error::Trimmed { .. }) => {
                    updates.extend(self.compare(store).await?);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Some(newest) = entries.last() else { return Ok(()) };
            self.last = newest.sequence;
            let joined = entries.iter().filter_map(|entry| presence::joined(&entry.value).ok());
            updates.extend(joined.filter_map(|joined| self.apply(joined)));
        }
    }
}

impl Shard {
    /// Begins to follow the members that `partition` holds.
    pub(super) async fn follow_members(
        &mut self,
        channel: &Channel,
        partition: &Partition,
        by: By,
    ) -> Result<Box<Members>, Problem> {
        self.feed(partition, channel, Feed::Members);
        let mut members = Box::new(Members::new(partition.clone(), by));
        match members.compare(&self.store).await {
            Ok(_) => Ok(members),
            Err(error) => {
                self.starve(partition, channel);
                Err(problem(error))
            }
        }
    }

    /// What a follower of the map starts with.
    pub(super) fn start_with_members(&self, channel: &Channel) -> Result<Start, Problem> {
        let followed = self.channels.get(channel);
        let members = followed.and_then(|followed| followed.members.as_ref());
        let members = members.map(|members| members.all()).unwrap_or_default();
        let bytes =
            |one: &Publication| 64 + one.key.len() + one.info.as_ref().map_or(0, ClientInfo::bytes);
        if members.iter().map(bytes).sum::<usize>() > self.recover_bytes_max {
            let detail = "more are subscribed than an answer can hold; ask for `presence_stats`";
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        Ok(Start { members, ..self.start_at(channel) })
    }

    /// Hands on who came and went since the last time.
    pub(super) async fn catch_up_members(&mut self, channel: &Channel) {
        let store = self.store.clone();
        let Some(members) = self.members(channel) else { return };
        let mut updates = Vec::new();
        let caught = members.catch_up(&store, &mut updates).await;
        let partition = members.partition.clone();
        self.hand_over_members(channel, updates).await;
        if let Err(error) = caught {
            tracing::warn!(?channel, %error, "those who come and go wait for the store");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            self.watcher.follow(partition, Position::ZERO);
        }
    }

    /// Compares every map with the store.
    pub(super) async fn compare_members(&mut self) {
        let held = self.channels.iter().filter(|(_, followed)| followed.members.is_some());
        let held: Vec<Channel> = held.map(|(channel, _)| channel.clone()).collect();
        let store = self.store.clone();
        for channel in held {
            let Some(members) = self.members(&channel) else { continue };
            match members.compare(&store).await {
                Ok(updates) => self.hand_over_members(&channel, updates).await,
                Err(error) => tracing::warn!(?channel, %error, "members are not compared"),
            }
        }
    }

    fn members(&mut self, channel: &Channel) -> Option<&mut Members> {
        self.channels.get_mut(channel)?.members.as_deref_mut()
    }

    async fn hand_over_members(&mut self, channel: &Channel, updates: Vec<Publication>) {
        for update in updates {
            self.hand_over(channel, update, None).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Kind;
    use types::TenantId;

    fn check(by: By, moves: &[(bool, &str, &str)], expected: &[&str]) {
        let tenant = TenantId::new("acme").unwrap();
        let partition = Partition::new(tenant, Kind::new("presence"), "room").unwrap();
        let mut members = Members::new(partition, by);
        let updates = moves.iter().filter_map(|(comes, user, client)| {
            let (user, client) = ((*user).into(), (*client).into());
            let info = ClientInfo { user, client, ..ClientInfo::default() };
            members.apply(if *comes { Joined::Join(info) } else { Joined::Leave(info) })
        });
        let told = |one: Publication| format!("{}{}", if one.removed { "-" } else { "+" }, one.key);
        assert_eq!(updates.map(told).collect::<Vec<_>>(), expected);
        assert!(members.all().is_empty() && members.users.is_empty());
    }

    #[test]
    fn a_user_is_there_as_long_as_one_connection_is() {
        let moves = [
            (true, "ann", "1"),
            (true, "ann", "1"),
            (true, "ann", "2"),
            (true, "bob", "3"),
            (false, "ann", "1"),
            (false, "ann", "1"),
            (false, "bob", "3"),
            (false, "ann", "2"),
            (false, "eve", "4"),
        ];
        check(By::Client, &moves, &["+1", "+2", "+3", "-1", "-3", "-2"]);
        check(By::User, &moves, &["+ann", "+bob", "-bob", "-ann"]);
    }

    #[test]
    fn what_is_said_of_a_connection_may_change() {
        let tenant = TenantId::new("acme").unwrap();
        let said = |text: &str| ClientInfo {
            user: "ann".into(),
            client: "1".into(),
            conn_info: types::Info::new(text),
            chan_info: None,
        };
        for (by, tells) in [(By::Client, true), (By::User, false)] {
            let partition = Partition::new(tenant.clone(), Kind::new("presence"), "room").unwrap();
            let mut members = Members::new(partition, by);
            assert!(members.enter(said("1")).is_some());
            assert!(members.enter(said("1")).is_none());
            let update = members.enter(said("2"));
            assert_eq!(update.is_some(), tells);
            if let Some(update) = update {
                assert_eq!((update.info, update.removed), (Some(said("2")), false));
            }
            assert!(members.leave("1").is_some() && members.users.is_empty());
        }
    }
}
