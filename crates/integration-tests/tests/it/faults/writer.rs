//! A user who changes a document that is theirs alone, and a service that publishes to them.

use super::ground::{User, World};
use client::Error;
use integration_tests::Random;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

const KEYS: usize = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a writer knows about an entry.
#[derive(Default)]
pub(super) struct Held {
    pub(super) revision: u64,
    pub(super) value: Option<Json>,
    /// What was asked for since, without an answer: any of it may happen, or have happened.
    pub(super) maybe: Vec<Json>,
}

/// What a writer was told.
pub(super) struct Written {
    pub(super) user: Arc<User>,
    pub(super) entries: BTreeMap<String, Held>,
    /// Publications by the offset that was told.
    pub(super) published: BTreeMap<u64, Json>,
    pub(super) maybe_published: Vec<Json>,
    /// Acknowledged changes, by revision.
    pub(super) changed: BTreeMap<u64, Json>,
    pub(super) maybe_changed: Vec<Json>,
}

pub(super) struct Writer {
    world: Arc<World>,
    random: Random,
    count: u64,
    written: Written,
}

impl Writer {
    pub(super) fn new(world: Arc<World>, user: Arc<User>, random: Random) -> Self {
        let written = Written {
            user,
            entries: BTreeMap::new(),
            published: BTreeMap::new(),
            maybe_published: Vec::new(),
            changed: BTreeMap::new(),
            maybe_changed: Vec::new(),
        };
        Self { world, random, count: 0, written }
    }

    pub(super) async fn work(mut self) -> Written {
        while !self.world.is_quiet() {
            if self.random.percent(50) {
                self.publish().await
            } else {
                self.change().await
            }
            tokio::time::sleep(Duration::from_millis(self.random.next() % 30)).await;
        }
        self.written
    }

    /// A value that nobody else writes.
    fn mark(&mut self) -> Json {
        self.count += 1;
        json!({ "tenant": self.written.user.tenant, "n": self.count })
    }

    async fn publish(&mut self) {
        let (mark, at) = (self.mark(), self.random.below(2));
        let user = self.written.user.clone();
        let path = format!("/crosstown/v1/channels/news:{}/publications", user.name);
        match answered(user.service[at].post::<Json>(&path, &mark)).await {
            Ok(told) => {
                let offset = told["offset"].as_u64().expect("an offset");
                user.news.acknowledged.fetch_max(offset, Ordering::SeqCst);
                if let Some(other) = self.written.published.insert(offset, mark) {
                    self.world.wrong(format!("{other} was told to be at {offset}, too"));
                }
            }
            Err(error) => {
                self.excuse(&error, "publish");
                self.written.maybe_published.push(mark);
            }
        }
    }

    async fn change(&mut self) {
        let (mark, at) = (self.mark(), self.random.below(2));
        let key = format!("k{}", self.random.below(KEYS));
        let user = self.written.user.clone();
        let document = user.by_token[at].document("user", user.name);
        let held = self.written.entries.entry(key.clone()).or_default();
        let asked = document.put(&key, &mark, Some(held.revision));
        match answered(asked).await {
            Ok(applied) => {
                user.state.acknowledged.fetch_max(applied.revision, Ordering::SeqCst);
                self.written.changed.insert(applied.revision, mark.clone());
                // What was asked for on an earlier revision can no longer happen.
                *held = Held { revision: applied.revision, value: Some(mark), maybe: Vec::new() };
            }
            Err(error) => {
                let conflict = error.code() == Some("conflict");
                if !conflict {
                    held.maybe.push(mark.clone());
                    self.written.maybe_changed.push(mark);
                    self.excuse(&error, "change");
                } else if held.maybe.is_empty() {
                    self.world.wrong(format!("{key} of {}: nobody else writes it", user.name));
                }
                self.read_again(&key).await;
            }
        }
    }

    /// Finds out what became of a write whose answer did not come.
    async fn read_again(&mut self, key: &str) {
        let user = self.written.user.clone();
        while !self.world.is_quiet() {
            let at = self.random.below(2);
            let document = user.by_token[at].document("user", user.name);
            match answered(document.snapshot()).await {
                Ok(snapshot) => {
                    let entry = snapshot.entries.into_iter().find(|entry| entry.key == key);
                    let Some(held) = self.written.entries.get_mut(key) else { return };
                    let found = entry.as_ref().map(|entry| &entry.value);
                    let known = found == held.value.as_ref()
                        || found.is_some_and(|found| held.maybe.contains(found));
                    if !known {
                        let what = format!("{key} is {entry:?}, not {:?}", held.value);
                        self.world.wrong(format!("{} of {}: {what}", user.name, user.tenant));
                    }
                    if let Some(entry) = entry {
                        held.revision = entry.revision;
                        held.value = Some(entry.value);
                    }
                    return;
                }
                Err(error) => self.excuse(&error, "read"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// While there are faults a request may find no node, and a node no store; anything else
    /// is wrong.
    fn excuse(&self, error: &Error, what: &str) {
        if !excused(error) {
            self.world.wrong(format!("{what}: {error}"));
        }
    }
}

pub(super) fn excused(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused { status, code, .. } => *status == 503 && code == "store_unavailable",
        Error::Address(_) | Error::Answer(_) => false,
    }
}

/// With an end to the patience: a paused node answers nothing.
pub(super) async fn answered<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Unreachable { address: String::new(), detail: "no answer".to_owned() };
    tokio::time::timeout(ANSWER_WITHIN, asked).await.map_err(late)?
}
