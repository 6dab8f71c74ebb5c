//! The same work by the PostgreSQL client alone: prepared statements over as many connections
//! as ours has, one round trip each, and the same rows of the same tables.

use crate::{
    Operation, Work, engine, entry,
    session::{SESSIONS, Session, user},
    told,
};
use async_trait::async_trait;
use clock::{SharedClock, SystemClock};
use serde_json::Value as Json;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use tokio_postgres::{Client, NoTls, Statement};

/// One statement, which is a transaction: it checks the entry's revision, writes the head, the
/// entry and the stream's entry, and answers the new revision, or nothing.
const CHANGE: &str = include_str!("../../../../bench/engines/change.sql");
const GET: &str = include_str!("../../../../bench/engines/get.sql");
const MAKE: &str = include_str!("../../../../bench/engines/make.sql");
const PUT: &str = include_str!("../../../../bench/engines/put.sql");
const TRIM: &str = include_str!("../../../../bench/engines/trim.sql");
/// As ours: two writers and four readers.
const CONNECTIONS: usize = 6;
/// A document's stream keeps about so many entries, and is trimmed as often as ours is.
const HISTORY: i64 = 1_000;
const TRIM_EVERY: i64 = 64;

struct Connection {
    client: Client,
    change: Statement,
    get: Statement,
    trim: Statement,
}

/// A row that is changed or read.
struct Place {
    id: Vec<u8>,
    known: Mutex<(i64, Json)>,
}

struct Raw {
    operation: Operation,
    clock: SharedClock,
    connections: Vec<Connection>,
    next: AtomicUsize,
    places: Vec<Place>,
}

pub(crate) async fn prepare(
    url: &str,
    operation: Operation,
    tasks: usize,
) -> Result<Arc<dyn Work>, String> {
    let clock = SystemClock::shared();
    // Our own store makes the tables, in a schema of its own, and goes away.
    let (server, _) = url.split_once('?').unwrap_or((url, ""));
    drop(engine::open(&format!("{server}?schema=raw"), &clock).await?);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let (client, connection) = tokio_postgres::connect(server, NoTls).await.map_err(told)?;
        tokio::spawn(connection);
        let prepare = async |text: &str| client.prepare(text).await.map_err(told);
        let (change, get) = (prepare(CHANGE).await?, prepare(GET).await?);
        let trim = prepare(TRIM).await?;
        connections.push(Connection { client, change, get, trim });
    }
    let mut raw =
        Raw { operation, clock, connections, next: AtomicUsize::new(0), places: Vec::new() };
    match operation {
        Operation::SessionRead => {
            for number in 0..SESSIONS {
                raw.make("session", user(number).into_bytes(), SESSION, |now| {
                    (Session::new(number, now).written(), Json::Null)
                })
                .await?;
            }
        }
        Operation::StatePut | Operation::StatePatch => {
            for task in 0..tasks {
                for number in 0..entry::DOCUMENTS {
                    let id = format!("pillar:{}", entry::document(task, number)).into_bytes();
                    raw.make("state", id, entry::KEY, |_| {
                        (entry::encoded(&entry::first_value()), entry::first_value())
                    })
                    .await?;
                }
            }
        }
        _ => return Err("there is no raw form of it".into()),
    }
    Ok(Arc::new(raw))
}

/// As long as a session's id.
const SESSION: &str = "ses_00000000000000000000000000000000";

impl Raw {
    /// Makes a partition's rows, at revision 1.
    async fn make(
        &mut self,
        kind: &str,
        id: Vec<u8>,
        key: &str,
        value: impl FnOnce(u64) -> (Vec<u8>, Json),
    ) -> Result<(), String> {
        let now = self.clock.now().0;
        let (value, known) = value(now);
        let client = &self.connections[0].client;
        client.execute(MAKE, &[&kind, &id]).await.map_err(told)?;
        let expires = (kind == "session").then_some(i64::try_from(now).map_err(told)? + 86_400_000);
        client
            .execute(PUT, &[&kind, &id, &key.as_bytes(), &value, &expires])
            .await
            .map_err(told)?;
        self.places.push(Place { id, known: Mutex::new((1, known)) });
        Ok(())
    }

    /// Requests are pipelined on whichever connection is next.
    fn connection(&self) -> &Connection {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[next % self.connections.len()]
    }

    async fn change(&self, place: &Place, value: Json) -> Result<(), String> {
        let known = || place.known.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = known().0;
        let change = entry::change(&value, self.clock.now().0);
        let Connection { client, change: statement, trim, .. } = self.connection();
        let written = client
            .query_opt(
                statement,
                &[&place.id, &entry::KEY.as_bytes(), &revision, &entry::encoded(&value), &change],
            )
            .await
            .map_err(told)?
            .ok_or("a conflict")?;
        let (revision, last): (i64, i64) = (written.get(0), written.get(1));
        *known() = (revision, value);
        if last % TRIM_EVERY == 0 && last > HISTORY {
            client.execute(trim, &[&place.id, &(last - HISTORY + 1)]).await.map_err(told)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Work for Raw {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        if self.operation == Operation::SessionRead {
            let place = &self.places[(task + turn as usize) % self.places.len()];
            let Connection { client, get, .. } = self.connection();
            let row = client
                .query_opt(get, &[&place.id, &SESSION.as_bytes()])
                .await
                .map_err(told)?
                .ok_or("a session is gone")?;
            return match Session::read(row.get(0), self.clock.now().0)? {
                true => Ok(()),
                false => Err("a session has ended".into()),
            };
        }
        let documents = entry::DOCUMENTS as usize;
        let place = &self.places[task * documents + (turn % entry::DOCUMENTS) as usize];
        let mut value = place.known.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        match self.operation {
            Operation::StatePut => value = entry::first_value(),
            _ => {
                json_patch::merge(&mut value, &entry::patch(turn));
            }
        }
        self.change(place, value).await
    }
}
