//! A client that follows a channel and a document as SDKs do, and notices what may not be.

use crate::histories::node::Node;
use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Add,
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::Role},
};

pub(crate) const CHANNEL: &str = "room";
pub(crate) const DOCUMENT: &str = "tenant:self";
const MAP: &str = "state:tenant:self";
const WITHIN: Duration = Duration::from_secs(20);

/// What happened to clients.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) connections: u64,
    pub(crate) recovered: u64,
    /// Recoveries that could not be whole, and were not said to be.
    pub(crate) lost: u64,
    /// Maps that were taken from the beginning.
    pub(crate) synced: u64,
    /// Moves of the document.
    pub(crate) moves: u64,
    /// Lives of the document that were lost with their node.
    pub(crate) lives: u64,
}

impl Add for Told {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            recovered: self.recovered + other.recovered,
            lost: self.lost + other.lost,
            synced: self.synced + other.synced,
            moves: self.moves + other.moves,
            lives: self.lives + other.lives,
        }
    }
}

/// The connection is gone; or the answer is an error with this code.
type Failure = Option<u64>;

#[derive(Debug, Default)]
struct Position {
    epoch: String,
    offset: u64,
}

/// A client, connected or not.
pub(crate) struct Follower {
    user: String,
    socket: Option<WebSocketStream<TcpStream>>,
    /// What came in a message and was not looked at yet.
    unread: VecDeque<Json>,
    next_id: u64,
    room: Option<Position>,
    /// What came in the room, by offset.
    log: BTreeMap<u64, Json>,
    map: Option<Position>,
    entries: BTreeMap<String, Json>,
    /// The newest revisions of entries that it knows of.
    revisions: BTreeMap<String, u64>,
    pub(crate) told: Told,
}

impl Follower {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            user: format!("user-{number}"),
            socket: None,
            unread: VecDeque::new(),
            next_id: 0,
            room: None,
            log: BTreeMap::new(),
            map: None,
            entries: BTreeMap::new(),
            revisions: BTreeMap::new(),
            told: Told::default(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn drop_connection(&mut self) {
        self.socket = None;
        self.unread.clear();
    }

    /// The revision of an entry that it last knew of; 0: there is none, or it knows none.
    pub(crate) fn revision(&self, key: &str) -> u64 {
        self.revisions.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn wrote(&mut self, key: &str, revision: u64) {
        self.revisions.insert(key.to_owned(), revision);
    }

    /// Connects, and follows from where it was. A failure leaves it without a connection.
    pub(crate) async fn connect(&mut self, node: &Node, history_size: u64) {
        let stream = node.connect(&self.user);
        self.socket = Some(WebSocketStream::from_raw_socket(stream, Role::Client, None).await);
        self.told.connections += 1;
        let begun = async {
            self.ask("connect", json!({})).await?;
            self.follow_room(history_size).await?;
            self.follow_map().await
        };
        if begun.await.is_err() {
            self.drop_connection();
        }
    }

    /// Connects, now that nothing goes wrong any more.
    pub(crate) async fn connect_at_last(&mut self, node: &Node, history_size: u64) {
        let until = std::time::Instant::now() + WITHIN;
        self.take_what_came().await;
        while self.ask("ping", json!({})).await.is_err() {
            assert!(std::time::Instant::now() < until, "{} cannot connect", self.user);
            self.connect(node, history_size).await;
        }
    }

    async fn follow_room(&mut self, history_size: u64) -> Result<(), Failure> {
        let mut request = json!({ "channel": CHANNEL });
        if let Some(Position { epoch, offset }) = &self.room {
            request["recover"] = json!(true);
            request["epoch"] = json!(epoch);
            request["offset"] = json!(offset);
        }
        let known = self.room.take();
        let stands = match self.ask("subscribe", request).await {
            Ok(stands) => stands,
            Err(failure) => {
                self.room = known;
                return Err(failure);
            }
        };
        let offset = stands["offset"].as_u64().unwrap_or(0);
        let epoch = stands["epoch"].as_str().unwrap().to_owned();
        if let Some(known) = known {
            let missed = stands["publications"].as_array().cloned().unwrap_or_default();
            if stands["recovered"] == true {
                assert_eq!(known.epoch, epoch);
                let mut next = known.offset + 1;
                for one in &missed {
                    assert_eq!(one["offset"], next, "recovered with a gap: {stands}");
                    self.log.insert(next, one["data"].clone());
                    next += 1;
                }
                assert_eq!(offset + 1, next, "recovered in part: {stands}");
                self.told.recovered += 1;
            } else {
                assert!(missed.is_empty(), "{stands}");
                let away = offset - known.offset;
                assert!(away >= history_size, "only {away} were missed: {stands}");
                self.log.clear();
                self.told.lost += 1;
            }
        }
        self.room = Some(Position { epoch, offset });
        Ok(())
    }

    async fn follow_map(&mut self) -> Result<(), Failure> {
        loop {
            let recovering = self.map.is_some();
            let mut state = BTreeMap::new();
            let mut changes = Vec::new();
            let mut at = self.map.take();
            let mut cursor = String::new();
            let mut phase = if recovering { 1 } else { 2 };
            let live = loop {
                let mut request = json!({ "channel": MAP, "type": 1, "phase": phase, "limit": 2 });
                if let Some(Position { epoch, offset }) = &at {
                    request["epoch"] = json!(epoch);
                    request["offset"] = json!(offset);
                }
                if !cursor.is_empty() {
                    request["cursor"] = json!(cursor);
                }
                if recovering {
                    request["recover"] = json!(true);
                }
                let page = match self.ask("subscribe", request).await {
                    Ok(page) => page,
                    Err(Some(112)) => break None,
                    Err(failure) => {
                        if recovering {
                            // What came in pages was not taken yet.
                            self.map = at.filter(|_| changes.is_empty());
                        }
                        return Err(failure);
                    }
                };
                let all = |name: &str| page[name].as_array().cloned().unwrap_or_default();
                for one in all("state") {
                    state.insert(one["key"].as_str().unwrap().to_owned(), one["data"].clone());
                }
                let mut next =
                    at.as_ref().map_or(page["offset"].as_u64().unwrap_or(0), |at| at.offset) + 1;
                for one in all("publications") {
                    // Entries without a first position begin where the first page says.
                    next = if at.is_none() && changes.is_empty() {
                        one["offset"].as_u64().unwrap()
                    } else {
                        next
                    };
                    assert_eq!(one["offset"], next, "changes with a gap: {page}");
                    next += 1;
                    changes.push(one);
                }
                let position = Position {
                    epoch: page["epoch"].as_str().unwrap_or_default().to_owned(),
                    offset: page["offset"].as_u64().unwrap_or(0),
                };
                match page["phase"].as_u64() {
                    Some(2) => {
                        cursor = page["cursor"].as_str().unwrap_or_default().to_owned();
                        phase = if cursor.is_empty() { 1 } else { 2 };
                        at = Some(position);
                    }
                    Some(1) => {
                        cursor.clear();
                        at = Some(position);
                    }
                    _ => {
                        assert_eq!(page["recovered"] == true, recovering, "{page}");
                        break Some(position);
                    }
                }
            };
            match live {
                Some(position) => {
                    if recovering {
                        self.told.recovered += 1;
                    } else {
                        self.entries = state;
                        self.told.synced += 1;
                    }
                    for change in changes {
                        self.update(&change);
                    }
                    self.map = Some(position);
                    return Ok(());
                }
                // What it knows cannot be led on from: from the beginning.
                None => self.entries.clear(),
            }
        }
    }

    fn update(&mut self, change: &Json) {
        let key = change["key"].as_str().unwrap().to_owned();
        if change["removed"] == true {
            self.entries.remove(&key);
        } else {
            self.entries.insert(key, change["data"].clone());
        }
    }

    /// Sends a command, and waits for no answer.
    pub(crate) async fn send(&mut self, command: &str, body: Json) -> u64 {
        self.next_id += 1;
        let text = json!({ "id": self.next_id, command: body }).to_string();
        if let Some(socket) = &mut self.socket
            && socket.send(Message::text(text)).await.is_err()
        {
            self.drop_connection();
        }
        self.next_id
    }

    pub(crate) async fn ask(&mut self, command: &str, body: Json) -> Result<Json, Failure> {
        let id = self.send(command, body).await;
        loop {
            let reply = self.next_reply().await?;
            if reply["id"] != id {
                self.handle(&reply);
                continue;
            }
            return match reply.get("error") {
                Some(error) => Err(error["code"].as_u64()),
                None => Ok(reply[command].clone()),
            };
        }
    }

    pub(crate) async fn rpc(&mut self, method: &str, data: Json) -> Result<Json, Failure> {
        let answer = self.ask("rpc", json!({ "method": method, "data": data })).await?;
        Ok(answer["data"].clone())
    }

    async fn next_reply(&mut self) -> Result<Json, Failure> {
        loop {
            let Some(socket) = &mut self.socket else { return Err(None) };
            if let Some(reply) = self.unread.pop_front() {
                return Ok(reply);
            }
            let message = tokio::time::timeout(WITHIN, socket.next()).await.expect("an answer");
            self.read(message);
        }
    }

    /// Takes what has come without waiting for more.
    pub(crate) async fn take_what_came(&mut self) {
        while let Some(socket) = &mut self.socket {
            if let Some(reply) = self.unread.pop_front() {
                self.handle(&reply);
                continue;
            }
            match socket.next().now_or_never() {
                Some(message) => self.read(message),
                None => return,
            }
        }
    }

    fn read(&mut self, message: Option<Result<Message, tungstenite::Error>>) {
        match message {
            Some(Ok(Message::Text(text))) => {
                self.unread.extend(
                    text.split('\n').map(|line| serde_json::from_str::<Json>(line).unwrap()),
                );
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.drop_connection(),
        }
    }

    fn handle(&mut self, reply: &Json) {
        let push = &reply["push"];
        let Some(publication) = push.get("pub") else {
            // The server asks to begin again, which is done by connecting anew.
            let is_lost = push.get("unsubscribe").is_some() && push["channel"] == MAP;
            assert!(!is_lost, "{} was told to begin again: {push}", self.user);
            if push.get("unsubscribe").is_some() || push.get("disconnect").is_some() {
                self.drop_connection();
            }
            return;
        };
        let offset = publication["offset"].as_u64().unwrap();
        let is_map = push["channel"] == MAP;
        let position = if is_map { &mut self.map } else { &mut self.room };
        let position = position.as_mut().expect("an update before there is anything to update");
        assert_eq!(offset, position.offset + 1, "{} of {}: {push}", self.user, position.offset);
        position.offset = offset;
        if is_map {
            self.update(publication);
        } else {
            self.log.insert(offset, publication["data"].clone());
        }
    }

    /// Waits until it has all that there is.
    pub(crate) async fn catch_up(&mut self, offset: u64, entries: &[Json]) {
        let until = std::time::Instant::now() + WITHIN;
        let value = |one: &Json| (one["key"].as_str().unwrap().to_owned(), one["value"].clone());
        let expected: BTreeMap<String, Json> = entries.iter().map(value).collect();
        loop {
            let has_all = self.room.as_ref().is_some_and(|room| room.offset == offset);
            if has_all && self.entries == expected {
                return;
            }
            let (held, user) = (&self.entries, &self.user);
            assert!(
                std::time::Instant::now() < until,
                "{user} stays at {:?} with {held:?} instead of {offset} with {expected:?}",
                self.room
            );
            if self.ask("ping", json!({})).await.is_err() {
                panic!("{} lost its connection at the end", self.user);
            }
        }
    }

    /// What came is what the channel holds.
    pub(crate) fn check_log(&self, held: &[Json]) {
        for one in held {
            let offset = one["offset"].as_u64().unwrap();
            if let Some(came) = self.log.get(&offset) {
                assert_eq!(*came, one["data"], "{}", self.user);
            }
        }
        let offsets: Vec<u64> = self.log.keys().copied().collect();
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{offsets:?}");
    }
}
