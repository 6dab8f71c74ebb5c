//! The same work by the Redis client alone: one multiplexed connection to each server, whatever
//! is changed together by one script, and the same keys with the same contents.

mod servers;

use crate::{
    Operation, Work, entry,
    raw_redis::servers::Servers,
    session::{SESSIONS, Session, user},
    told,
};
use async_trait::async_trait;
use clock::{SharedClock, SystemClock};
use redis::{Script, aio::MultiplexedConnection};
use serde_json::Value as Json;
use std::sync::{Arc, Mutex, PoisonError};

/// Checks the entry's revision, writes the entry, its place among the changes, the stream's
/// entry and the head, and tells whoever follows.
const CHANGE: &str = include_str!("../../../../bench/engines/change.lua");
/// Appends a publication, keeps the last hundred, and tells whoever follows.
const PUBLISH: &str = include_str!("../../../../bench/engines/publish.lua");
/// The document as a whole, at one position.
const READ: &str = include_str!("../../../../bench/engines/read.lua");

/// The names of one document's or channel's keys, which lie in one slot.
struct Place {
    connection: MultiplexedConnection,
    head: String,
    records: String,
    changes: String,
    stream: String,
    channel: String,
    name: String,
    /// The revision and the value that were written last: nobody else writes here, and if
    /// somebody did, the script would refuse.
    known: Mutex<(u64, Json)>,
}

impl Place {
    async fn new(servers: &Servers, kind: &str, id: &str) -> Result<Self, String> {
        // As long as ours are.
        let name = format!("\u{4}acme\u{5}{kind}pillar:{id}");
        let tag = format!("raw-redis:{{b{:04}}}", id.bytes().map(u32::from).sum::<u32>() % 1024);
        let head = format!("{tag}m:{name}");
        Ok(Self {
            connection: servers.of(&head).await?,
            records: format!("{tag}r:{name}"),
            changes: format!("{tag}c:{name}"),
            stream: format!("{tag}s:\u{7}changes{name}"),
            channel: format!("{tag}hints"),
            known: Mutex::new((0, Json::Null)),
            head,
            name,
        })
    }
}

struct Raw {
    operation: Operation,
    clock: SharedClock,
    change: Script,
    publish: Script,
    read: Script,
    places: Vec<Place>,
}

pub(crate) async fn prepare(
    url: &str,
    operation: Operation,
    tasks: usize,
) -> Result<Arc<dyn Work>, String> {
    let servers = Servers::open(url, [CHANGE, PUBLISH, READ]).await?;
    let [change, publish, read] = [CHANGE, PUBLISH, READ].map(Script::new);
    let clock = SystemClock::shared();
    let mut raw = Raw { operation, clock, change, publish, read, places: Vec::new() };
    match operation {
        Operation::SessionRead => {
            for number in 0..SESSIONS {
                let place = Place::new(&servers, "sessi", &user(number)).await?;
                let session = Session::new(number, raw.clock.now().0).written();
                let mut write = redis::cmd("HSET");
                write.arg(&place.records).arg(KEY_OF_SESSION).arg(session);
                write.exec_async(&mut place.connection.clone()).await.map_err(told)?;
                raw.places.push(place);
            }
        }
        Operation::StatePut | Operation::StatePatch | Operation::StateRead => {
            for task in 0..tasks {
                for number in 0..entry::DOCUMENTS {
                    let id = entry::document(task, number);
                    let place = Place::new(&servers, "state", &id).await?;
                    raw.change(&place, entry::first_value()).await?;
                    raw.places.push(place);
                }
            }
        }
        Operation::Publish => {
            for task in 0..tasks {
                for number in 0..entry::DOCUMENTS {
                    let id = entry::document(task, number);
                    raw.places.push(Place::new(&servers, "chann", &id).await?);
                }
            }
        }
        Operation::SessionCreate | Operation::SessionReadCached | Operation::LimitCharge => {
            return Err("there is no raw form of it".into());
        }
    }
    Ok(Arc::new(raw))
}

/// As long as a session's id.
const KEY_OF_SESSION: &str = "ses_00000000000000000000000000000000";

impl Raw {
    fn place(&self, task: usize, turn: u64) -> &Place {
        let documents = entry::DOCUMENTS as usize;
        &self.places[task * documents + (turn % entry::DOCUMENTS) as usize]
    }

    async fn change(&self, place: &Place, value: Json) -> Result<(), String> {
        let known = || place.known.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = known().0;
        let at = self.clock.now().0;
        let written: Vec<u64> = self
            .change
            .key(&place.head)
            .key(&place.records)
            .key(&place.changes)
            .key(&place.stream)
            .arg(entry::KEY)
            .arg(revision)
            .arg(entry::encoded(&value))
            .arg(entry::change(&value, at))
            .arg(at)
            .arg(&place.channel)
            .arg(&place.name)
            .invoke_async(&mut place.connection.clone())
            .await
            .map_err(told)?;
        let [revision, _sequence] = written.as_slice() else { return Err("a conflict".into()) };
        *known() = (*revision, value);
        Ok(())
    }
}

#[async_trait]
impl Work for Raw {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        match self.operation {
            Operation::SessionRead => {
                let place = &self.places[(task + turn as usize) % self.places.len()];
                let mut read = redis::cmd("HGET");
                read.arg(&place.records).arg(KEY_OF_SESSION);
                let found: Vec<u8> =
                    read.query_async(&mut place.connection.clone()).await.map_err(told)?;
                match Session::read(&found, self.clock.now().0)? {
                    true => Ok(()),
                    false => Err("a session has ended".into()),
                }
            }
            Operation::StatePut => self.change(self.place(task, turn), entry::first_value()).await,
            Operation::StatePatch => {
                let place = self.place(task, turn);
                let mut value =
                    place.known.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
                json_patch::merge(&mut value, &entry::patch(turn));
                self.change(place, value).await
            }
            Operation::StateRead => {
                let place = self.place(task, turn);
                let told_of: (Option<u64>, Vec<Vec<u8>>) = self
                    .read
                    .key(&place.head)
                    .key(&place.records)
                    .invoke_async(&mut place.connection.clone())
                    .await
                    .map_err(told)?;
                let Some(bytes) = told_of.1.get(1) else { return Err("no entry".into()) };
                let value = bytes.get(17..).unwrap_or_default();
                serde_json::from_slice::<Json>(value).map(drop).map_err(told)
            }
            _ => {
                let place = self.place(task, turn);
                let written: Result<Vec<u64>, _> = self
                    .publish
                    .key(&place.head)
                    .key(&place.stream)
                    .arg(entry::change(&entry::first_value(), self.clock.now().0))
                    .arg(self.clock.now().0)
                    .arg(&place.channel)
                    .arg(&place.name)
                    .invoke_async(&mut place.connection.clone())
                    .await;
                written.map(drop).map_err(told)
            }
        }
    }
}
