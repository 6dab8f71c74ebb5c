//! A channel or a document as its followers see it: a dense stream that only grows.

use super::worker::{Done, Held, Write};
use client::Client;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

pub(super) fn channel_name(number: usize) -> String {
    format!("room-{number}")
}

/// Documents are named by the channels that tell their changes.
pub(super) fn document_name(number: usize) -> String {
    format!("state:pillar:area-{number}")
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq)]
struct Item {
    offset: u64,
    /// As subscribers get it.
    data: Json,
}

pub(super) struct Topic {
    pub(super) name: String,
    /// What the subscriber has seen in this round.
    pub(super) seen: Vec<(u64, Json)>,
    epoch: String,
    /// The last offset that the subscriber knows.
    known: u64,
    /// The document's revision when it was compared last.
    revision: u64,
    /// All that was found so far.
    items: Vec<Item>,
}

/// What an audit found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) wrong: Vec<String>,
    /// Workers whose unanswered write has happened, and the revision or offset that it made.
    pub(super) happened: Vec<(usize, u64)>,
}

/// Collects publications until the node is gone.
pub(super) async fn observe(mut socket: Socket) -> Vec<(u64, Json)> {
    let mut seen = Vec::new();
    loop {
        let push = socket.push().await;
        if push.is_null() {
            return seen;
        }
        let offset = push["pub"]["offset"].as_u64().expect("an offset");
        seen.push((offset, push["pub"]["data"].clone()));
    }
}

impl Topic {
    pub(super) fn channel(number: usize) -> Self {
        Self::new(channel_name(number))
    }

    pub(super) fn document(number: usize) -> Self {
        Self::new(document_name(number))
    }

    fn new(name: String) -> Self {
        let (epoch, items) = (String::new(), Vec::new());
        Self { name, seen: Vec::new(), epoch, known: 0, revision: 0, items }
    }

    pub(super) fn is_document(&self) -> bool {
        self.name.starts_with("state:")
    }

    fn last(&self) -> u64 {
        self.items.last().map_or(0, |item| item.offset)
    }

    async fn socket(server: &Server) -> Socket {
        Socket::connect(&server.base(), &server.token("acme", "observer")).await
    }

    /// A subscriber that knows everything there is.
    pub(super) async fn subscribe_first(&mut self, server: &Server) -> Socket {
        let mut socket = Self::socket(server).await;
        let wish = json!({ "channel": self.name, "recoverable": true });
        let start = socket.ask("subscribe", wish).await.expect("a subscription");
        let epoch = start["epoch"].as_str().expect("an epoch");
        if self.epoch.is_empty() {
            self.epoch = epoch.to_owned();
        }
        assert_eq!(self.epoch, epoch, "the epoch of {}", self.name);
        self.known = start["offset"].as_u64().unwrap_or(0);
        assert_eq!(self.known, self.last(), "the end of {}", self.name);
        socket
    }

    /// Reads what has come since the last audit and finds each acknowledged write in it once,
    /// each unanswered one at most once, and nothing else; and lets the subscriber recover.
    pub(super) async fn audit(
        &mut self,
        server: &Server,
        service: &Client,
        done: &[Done],
        maybe: &[(usize, Write)],
    ) -> Found {
        let mut found = Found::default();
        let mut socket = Self::socket(server).await;
        let fresh = match self.read_after(self.last(), service, &mut socket).await {
            Ok(fresh) => fresh,
            Err(why) => {
                found.wrong.push(why);
                return found;
            }
        };
        let is_document = self.is_document();
        let mut owed: Vec<(&Done, bool)> = done.iter().map(|done| (done, false)).collect();
        let mut maybe: Vec<&(usize, Write)> = maybe.iter().collect();
        let mut last_of_worker = BTreeMap::new();
        let mut revision = self.items.last().map_or(0, |item| number(is_document, item));
        for item in &fresh {
            let number = number(is_document, item);
            if number <= revision {
                found.wrong.push(format!("{}: {item:?} is not after {revision}", self.name));
            }
            revision = number;
            let matches = |write: &Write| published(write) == item_key(is_document, item);
            let at = owed.iter().position(|(done, taken)| {
                !taken && matches(&done.write) && done.number.is_none_or(|told| told == number)
            });
            if let Some(at) = at {
                owed[at].1 = true;
                // A worker waits for each answer, so its writes are in its own order.
                let order = last_of_worker.entry(owed[at].0.worker).or_insert(0);
                if at < *order {
                    found.wrong.push(format!("{}: {item:?} came after a later one", self.name));
                }
                *order = at;
            } else if let Some(at) = maybe.iter().position(|(_, write)| matches(write)) {
                let (worker, _) = maybe.remove(at);
                found.happened.push((*worker, number));
            } else {
                found.wrong.push(format!("{}: nobody wrote {item:?}", self.name));
            }
        }
        for (done, _) in owed.iter().filter(|(_, taken)| !taken) {
            found.wrong.push(format!("{}: acknowledged and missing: {done:?}", self.name));
        }
        self.items.extend(fresh);
        for (offset, data) in std::mem::take(&mut self.seen) {
            if self.known + 1 != offset {
                found.wrong.push(format!("{}: {offset} came after {}", self.name, self.known));
            }
            self.known = offset;
            let held = self.items.iter().rev().find(|item| item.offset == offset);
            if held.is_none_or(|item| item.data != data) {
                let was = format!("{offset} was shown as {data} and is {held:?}");
                found.wrong.push(format!("{}: {was}", self.name));
            }
        }
        found.wrong.extend(self.recover(&mut socket).await);
        found
    }

    /// The subscriber comes back with the position that it knows.
    async fn recover(&self, socket: &mut Socket) -> Vec<String> {
        let wish = json!({
            "channel": self.name, "recover": true, "epoch": self.epoch, "offset": self.known,
        });
        let start = socket.ask("subscribe", wish).await.expect("a subscription");
        let missed: Vec<(Json, Json)> = start["publications"]
            .as_array()
            .iter()
            .flat_map(|missed| missed.iter())
            .map(|publication| (publication["offset"].clone(), publication["data"].clone()))
            .collect();
        let expected: Vec<(Json, Json)> = self
            .items
            .iter()
            .filter(|item| item.offset > self.known)
            .map(|item| (json!(item.offset), item.data.clone()))
            .collect();
        let epoch = start["epoch"] == self.epoch;
        if start["recovered"] == true && epoch && missed == expected {
            return Vec::new();
        }
        let (got, wanted) = (missed.len(), expected.len());
        vec![format!(
            "{}: recovery after {} of {} gives {got} instead of {wanted}: recovered {}, epoch {}",
            self.name, self.known, self.epoch, start["recovered"], start["epoch"]
        )]
    }

    /// Reads the stream after an offset to its end, without a gap.
    async fn read_after(
        &self,
        offset: u64,
        service: &Client,
        socket: &mut Socket,
    ) -> Result<Vec<Item>, String> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let after = items.last().map_or(offset, |item| item.offset);
            let page = if self.is_document() {
                self.document_page(after, service).await?
            } else {
                self.channel_page(after, socket).await?
            };
            if page.is_empty() {
                return Ok(items);
            }
            for item in page {
                let expected = items.last().map_or(offset, |item| item.offset) + 1;
                if item.offset != expected {
                    return Err(format!("{}: {item:?} stands at {expected}", self.name));
                }
                items.push(item);
            }
        }
    }

    async fn document_page(&self, after: u64, service: &Client) -> Result<Vec<Item>, String> {
        let id = self.name.strip_prefix("state:pillar:").expect("a document");
        let from = after + 1;
        let path = format!("/crosstown/v1/state/pillar/{id}/history?offset={from}&limit=1000");
        let page: Json = service.get(&path).await.map_err(|e| format!("{path}: {e}"))?;
        let item = |entry: &Json| {
            let mut data = entry.clone();
            let fields = data.as_object_mut().expect("an object");
            let offset = fields.remove("offset").and_then(|offset| offset.as_u64());
            fields.remove("by");
            fields.remove("at");
            Item { offset: offset.expect("an offset"), data }
        };
        Ok(page["entries"].as_array().iter().flat_map(|page| page.iter()).map(item).collect())
    }

    async fn channel_page(&self, after: u64, socket: &mut Socket) -> Result<Vec<Item>, String> {
        let mut wish = json!({ "channel": self.name, "limit": 1000 });
        wish["since"] = json!({ "offset": after, "epoch": self.epoch });
        let page = socket.ask("history", wish).await;
        let page = page.map_err(|error| format!("{}: history: {error}", self.name))?;
        let item = |publication: &Json| Item {
            offset: publication["offset"].as_u64().expect("an offset"),
            data: publication["data"].clone(),
        };
        let page = page["publications"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(page.iter().map(item).collect())
    }

    /// Compares a document, and what has changed since the last comparison, with the model.
    pub(super) async fn compare(
        &mut self,
        service: &Client,
        model: BTreeMap<String, Held>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let id = self.name.strip_prefix("state:pillar:").expect("a document");
        let document = service.document("pillar", id);
        let snapshot = document.snapshot().await.expect("a snapshot");
        if snapshot.epoch != self.epoch {
            let (is, was) = (&snapshot.epoch, &self.epoch);
            wrong.push(format!("{}: the epoch is {is} and was {was}", self.name));
        }
        let there: BTreeMap<String, Held> = snapshot
            .entries
            .into_iter()
            .map(|e| (e.key, Held { revision: e.revision, value: Some(e.value) }))
            .collect();
        let living: BTreeMap<String, Held> = model
            .iter()
            .filter(|(_, held)| held.value.is_some())
            .map(|(key, held)| (key.clone(), held.clone()))
            .collect();
        wrong.extend(differences(&self.name, &there, &living));
        let (epoch, since) = (&self.epoch, self.revision);
        let path = format!(
            "/crosstown/v1/state/pillar/{id}/changes?epoch={epoch}&revision={since}&wait_ms=0"
        );
        let told: Json = match service.get(&path).await {
            Ok(told) => told,
            Err(error) => return vec![format!("{path}: {error}")],
        };
        let changed: BTreeMap<String, Held> = told["changes"]
            .as_array()
            .iter()
            .flat_map(|changes| changes.iter())
            .map(|change| {
                let key = change["key"].as_str().expect("a key").to_owned();
                let revision = change["revision"].as_u64().expect("a revision");
                (key, Held { revision, value: change.get("value").cloned() })
            })
            .collect();
        let expected: BTreeMap<String, Held> = model
            .into_iter()
            .filter(|(_, held)| held.revision > since && (since > 0 || held.value.is_some()))
            .collect();
        let mut changed = changed;
        if since == 0 {
            // Whoever asks from the beginning need not be told what is gone already.
            changed.retain(|_, held| held.value.is_some());
        }
        wrong.extend(differences(&format!("{path}: changes"), &changed, &expected));
        self.revision = snapshot.revision;
        wrong
    }

    /// Reads the whole stream: everything that any audit has found is still there.
    pub(super) async fn read_all_again(
        &mut self,
        server: &Server,
        service: &Client,
    ) -> Option<String> {
        let mut socket = Self::socket(server).await;
        match self.read_after(0, service, &mut socket).await {
            Err(why) => Some(why),
            Ok(items) if items != self.items => {
                Some(format!("{}: the stream is not what it was", self.name))
            }
            Ok(_) => None,
        }
    }
}

/// The revision of a change; the offset of a publication.
fn number(is_document: bool, item: &Item) -> u64 {
    let revision = item.data["revision"].as_u64();
    if is_document { revision.expect("a revision") } else { item.offset }
}

/// What a write puts into its stream: for a document the key, and the value (none: deleted).
fn published(write: &Write) -> Option<(Option<&str>, Option<&Json>)> {
    match write {
        Write::Change { key, after, .. } => Some((Some(key), after.as_ref())),
        Write::Publish { data, .. } => Some((None, Some(data))),
        Write::Create { .. } | Write::Update { .. } | Write::Destroy { .. } => None,
    }
}

fn item_key(is_document: bool, item: &Item) -> Option<(Option<&str>, Option<&Json>)> {
    if is_document {
        Some((item.data["key"].as_str(), item.data.get("value")))
    } else {
        Some((None, Some(&item.data)))
    }
}

fn differences(
    name: &str,
    there: &BTreeMap<String, Held>,
    expected: &BTreeMap<String, Held>,
) -> Vec<String> {
    let keys = there.keys().chain(expected.keys().filter(|key| !there.contains_key(*key)));
    keys.filter(|key| there.get(*key) != expected.get(*key))
        .map(|key| format!("{name}: {key} is {:?}, not {:?}", there.get(key), expected.get(key)))
        .collect()
}
