//! State documents.

use crate::{Client, Error};
use serde::Deserialize;
use serde_json::Value as Json;
use std::{collections::VecDeque, fmt::Write, time::Duration};

/// A pause after a failed question for changes.
const PAUSE: Duration = Duration::from_millis(250);

/// A state document of the caller's tenant.
#[derive(Clone)]
pub struct Document {
    client: Client,
    path: String,
}

/// An entry of a document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its value.
    pub value: Json,
}

/// A document as a whole.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Snapshot {
    /// The life of the document.
    pub epoch: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its entries, by key.
    pub entries: Vec<Entry>,
}

/// A change of an entry.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Change {
    /// Which entry.
    pub key: String,
    /// The revision that it made.
    pub revision: u64,
    /// The new value; none if the entry was deleted.
    pub value: Option<Json>,
    /// Whether the entry was deleted.
    #[serde(default)]
    pub deleted: bool,
}

/// An applied change.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Applied {
    /// The life of the document.
    pub epoch: String,
    /// The revision that it made.
    pub revision: u64,
    /// The value now.
    pub value: Option<Json>,
}

/// Several changes that were applied at once, at one revision.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Transacted {
    /// The life of the document.
    pub epoch: String,
    /// The revision that they made.
    pub revision: u64,
}

/// What came of copying entries from another document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Synced {
    /// The source's revision of which the copied values are.
    pub from_revision: u64,
    /// The document's revision after it.
    pub revision: u64,
    /// How many entries were written.
    pub synced: usize,
    /// How many were as they should be.
    pub unchanged: usize,
    /// Those that the source does not have.
    pub missing: Vec<String>,
    /// Those that both have written, as `{"key", "from": {"revision", "value"}, "to": …}`; of
    /// the last copy only their keys.
    pub conflicts: Vec<Json>,
}

#[derive(Deserialize)]
struct Changes {
    epoch: String,
    revision: u64,
    changes: Vec<Change>,
}

/// What a [`Follower`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The document as it is: first of all, and where changes can no longer be told.
    Snapshot(Snapshot),
    /// A change after what was told before.
    Change(Change),
}

impl Document {
    pub(crate) fn new(client: Client, scope: &str, id: &str) -> Self {
        let path = format!("/crosstown/v1/state/{}/{}", escaped(scope), escaped(id));
        Self { client, path }
    }

    /// The whole document.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.client.get(&self.path).await
    }

    /// The whole document as it was at `revision`. If that is no longer known, the error's code
    /// is `lagged`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Error> {
        self.client.get(&format!("{}?at={revision}", self.path)).await
    }

    /// An entry as it was at `revision`; `not_found` if there was none.
    ///
    /// # Errors
    /// As [`Self::snapshot_at`].
    pub async fn get_at(&self, key: &str, revision: u64) -> Result<Entry, Error> {
        self.client.get(&format!("{}?at={revision}", self.entry(key, None))).await
    }

    /// Makes the document again what it was at `revision`, or only the entries of `keys`: at
    /// most 32 changes, all in one commit. With `if_revision`, only if that is the document's
    /// revision, else the error's code is `conflict`.
    ///
    /// # Errors
    /// As [`Self::snapshot_at`].
    pub async fn restore(
        &self,
        revision: u64,
        keys: Option<&[&str]>,
        if_revision: Option<u64>,
    ) -> Result<Transacted, Error> {
        let what =
            serde_json::json!({ "revision": revision, "keys": keys, "if_revision": if_revision });
        self.client.post(&format!("{}/restore", self.path), &what).await
    }

    /// Copies entries of the document `source`, `{scope}:{id}`, to this one. What others wrote
    /// here since the last copy is left as it is and told as a conflict, unless `strategy` is
    /// `source_wins` or `merge_patch` instead of `reject`. It is safe to repeat.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn sync_from(
        &self,
        source: &str,
        keys: &[&str],
        strategy: &str,
    ) -> Result<Synced, Error> {
        let what = serde_json::json!({ "from": source, "keys": keys, "strategy": strategy });
        self.client.post(&format!("{}/sync", self.path), &what).await
    }

    /// What came of the last copy from `source`; `not_found` if there was none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn last_sync_from(&self, source: &str) -> Result<Synced, Error> {
        self.client.get(&format!("{}/sync?from={}", self.path, escaped(source))).await
    }

    /// Sets an entry. With `if_revision`, only if that is the entry's revision (0: there is
    /// none); else the error's code is `conflict` and its document holds the entry as it is.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(
        &self,
        key: &str,
        value: &Json,
        if_revision: Option<u64>,
    ) -> Result<Applied, Error> {
        self.client.put(&self.entry(key, if_revision), value).await
    }

    /// Merges `patch` into an entry (RFC 7396).
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn patch(
        &self,
        key: &str,
        patch: &Json,
        if_revision: Option<u64>,
    ) -> Result<Applied, Error> {
        self.client.patch(&self.entry(key, if_revision), patch).await
    }

    /// Changes several entries at once: all, or none if a condition does not hold. Each step is
    /// `{"op": "put", "key": "k", "value": 1, "if_revision": 7}`; the operations are `put`,
    /// `patch`, `json_patch` and `delete`.
    ///
    /// # Errors
    /// As [`Self::put`]; the refusal's document names the `key` that it is about.
    pub async fn transact(&self, steps: &[Json]) -> Result<Transacted, Error> {
        let path = format!("{}/transactions", self.path);
        self.client.post(&path, &serde_json::json!({ "steps": steps })).await
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn delete(&self, key: &str, if_revision: Option<u64>) -> Result<(), Error> {
        self.client.delete(&self.entry(key, if_revision)).await
    }

    /// Follows the document from now on, beginning with a snapshot.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower { document: self.clone(), known: None, waiting: VecDeque::new() }
    }

    fn entry(&self, key: &str, if_revision: Option<u64>) -> String {
        let path = format!("{}/entries/{}", self.path, escaped(key));
        if_revision.map_or(path.clone(), |revision| format!("{path}?if_revision={revision}"))
    }
}

/// Tells the changes of a document; see [`Document::follow`].
pub struct Follower {
    document: Document,
    known: Option<(String, u64)>,
    waiting: VecDeque<Change>,
}

impl Follower {
    /// Waits for the next event, through interruptions of any length.
    ///
    /// # Errors
    /// A refusal that no waiting will change, for instance `forbidden`.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Ok(Event::Change(change));
            }
            let asked = match &self.known {
                None => match self.document.snapshot().await {
                    Ok(snapshot) => {
                        self.known = Some((snapshot.epoch.clone(), snapshot.revision));
                        return Ok(Event::Snapshot(snapshot));
                    }
                    Err(error) => Err(error),
                },
                Some((epoch, revision)) => {
                    let query = format!("epoch={epoch}&revision={revision}&wait_ms=20000");
                    let path = format!("{}/changes?{query}", self.document.path);
                    self.document.client.get::<Changes>(&path).await
                }
            };
            match asked {
                Ok(changes) => {
                    self.known = Some((changes.epoch, changes.revision));
                    self.waiting = changes.changes.into();
                }
                Err(error) if error.code() == Some("lagged") => self.known = None,
                Err(Error::Refused { status, .. }) if status == 429 || status >= 500 => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Error::Unreachable { .. }) => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A part of a path, with everything but unreserved characters escaped (RFC 3986).
fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
