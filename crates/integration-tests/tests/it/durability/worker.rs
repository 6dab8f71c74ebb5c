//! One writer: one write at a time, and an exact memory of what was acknowledged.

use super::{CHANNELS, DOCUMENTS, Round, topic};
use client::Client;
use http::Method;
use integration_tests::{Random, Socket};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

const KEYS: usize = 4;
const SESSIONS_MAX: usize = 12;

/// A write, with what it comes to if it happens.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Write {
    Create { metadata: Json },
    Update { session: String, metadata: Json },
    Destroy { session: String },
    Change { topic: String, key: String, how: How, after: Option<Json>, if_revision: Option<u64> },
    Publish { topic: String, data: Json },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    Put,
    Patch(Json),
    Delete,
}

impl Write {
    /// The document or channel that it goes to.
    pub(super) fn topic(&self) -> Option<&str> {
        match self {
            Self::Change { topic, .. } | Self::Publish { topic, .. } => Some(topic),
            Self::Create { .. } | Self::Update { .. } | Self::Destroy { .. } => None,
        }
    }
}

/// An acknowledged write and, where the answer told it, the revision or offset that it made.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) worker: usize,
    pub(super) write: Write,
    pub(super) number: Option<u64>,
}

impl Done {
    pub(super) fn topic(&self) -> Option<&str> {
        self.write.topic()
    }
}

/// An entry of a document that only this worker writes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Held {
    pub(super) revision: u64,
    /// None: deleted.
    pub(super) value: Option<Json>,
}

struct Session {
    metadata: Json,
    token: Option<String>,
}

pub(super) struct Worker {
    pub(super) number: usize,
    /// Whether it changes documents and publishes by socket.
    pub(super) by_socket: bool,
    /// Acknowledged writes of this round, in their order.
    pub(super) done: Vec<Done>,
    /// The write whose answer never came.
    pub(super) unanswered: Option<Write>,
    entries: BTreeMap<(String, String), Held>,
    sessions: BTreeMap<String, Session>,
    written: u64,
}

impl Worker {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            by_socket: number % 2 == 1,
            done: Vec::new(),
            unanswered: None,
            entries: BTreeMap::new(),
            sessions: BTreeMap::new(),
            written: 0,
        }
    }

    /// Writes until the node is gone.
    pub(super) async fn work(
        mut self,
        mut random: Random,
        service: Client,
        mut socket: Option<Socket>,
        round: Arc<Round>,
    ) -> Self {
        self.done.clear();
        while !round.over.load(Ordering::SeqCst) {
            let write = self.choose(&mut random);
            round.in_flight.fetch_add(1, Ordering::SeqCst);
            let answer = self.send(&write, &service, socket.as_mut()).await;
            round.in_flight.fetch_sub(1, Ordering::SeqCst);
            let Some(answer) = answer else {
                self.unanswered = Some(write);
                break;
            };
            round.acknowledged.fetch_add(1, Ordering::SeqCst);
            self.acknowledged(write, &answer);
        }
        self
    }

    fn choose(&mut self, random: &mut Random) -> Write {
        self.written += 1;
        let mark = json!({ "worker": self.number, "n": self.written, "noise": random.next() });
        match random.below(10) {
            0 if self.sessions.len() < SESSIONS_MAX => Write::Create { metadata: mark },
            0..=2 if !self.sessions.is_empty() => {
                let sessions: Vec<&String> = self.sessions.keys().collect();
                let session = (*random.pick(&sessions)).clone();
                if random.percent(40) || self.sessions.len() == SESSIONS_MAX {
                    Write::Destroy { session }
                } else {
                    Write::Update { session, metadata: mark }
                }
            }
            0..=2 => Write::Create { metadata: mark },
            3..=6 => {
                let topic = topic::document_name(random.below(DOCUMENTS));
                let key = format!("w{}-{}", self.number, random.below(KEYS));
                let held = self.entries.get(&(topic.clone(), key.clone())).cloned();
                let held = held.unwrap_or_default();
                let exact = if held.value.is_some() { held.revision } else { 0 };
                let if_revision = random.percent(30).then_some(exact);
                let (how, after) = match (random.below(4), held.value) {
                    (0, Some(_)) => (How::Delete, None),
                    (1, value) => {
                        let mut after = value.unwrap_or_else(|| json!({}));
                        after["patched"] = mark["n"].clone();
                        (How::Patch(json!({ "patched": mark["n"] })), Some(after))
                    }
                    (_, _) => (How::Put, Some(mark)),
                };
                Write::Change { topic, key, how, after, if_revision }
            }
            _ => Write::Publish { topic: topic::channel_name(random.below(CHANNELS)), data: mark },
        }
    }

    /// The answer; `None` if none came.
    async fn send(
        &self,
        write: &Write,
        service: &Client,
        socket: Option<&mut Socket>,
    ) -> Option<Json> {
        let sessions = "/crosstown/v1/sessions";
        match (write, socket) {
            (Write::Create { metadata }, _) => {
                let path = format!("{sessions}?user=u{}", self.number);
                by_http(service, Method::POST, &path, Some(json!({ "metadata": metadata }))).await
            }
            (Write::Update { session, metadata }, _) => {
                let body = json!({ "metadata": metadata });
                by_http(service, Method::PATCH, &format!("{sessions}/{session}"), Some(body)).await
            }
            (Write::Destroy { session }, _) => {
                by_http(service, Method::DELETE, &format!("{sessions}/{session}"), None).await
            }
            (Write::Change { topic, key, how, after, if_revision }, Some(socket)) => {
                let document = topic.strip_prefix("state:").expect("a document");
                let mut data = json!({ "document": document, "key": key });
                if let Some(revision) = if_revision {
                    data["if_revision"] = json!(revision);
                }
                let method = match how {
                    How::Put => {
                        data["value"] = json!(after);
                        "state.put"
                    }
                    How::Patch(patch) => {
                        data["value"] = patch.clone();
                        "state.patch"
                    }
                    How::Delete => "state.delete",
                };
                answered(write, socket.rpc(method, data).await)
            }
            (Write::Change { topic, key, how, after, if_revision }, None) => {
                let id = topic.strip_prefix("state:pillar:").expect("a document");
                let mut path = format!("/crosstown/v1/state/pillar/{id}/entries/{key}");
                if let Some(revision) = if_revision {
                    path = format!("{path}?if_revision={revision}");
                }
                let (method, body) = match how {
                    How::Put => (Method::PUT, Some(json!(after))),
                    How::Patch(patch) => (Method::PATCH, Some(patch.clone())),
                    How::Delete => (Method::DELETE, None),
                };
                by_http(service, method, &path, body).await
            }
            (Write::Publish { topic, data }, Some(socket)) => {
                let publish = json!({ "channel": topic, "data": data });
                answered(write, socket.ask("publish", publish).await)
            }
            (Write::Publish { topic, data }, None) => {
                let path = format!("/crosstown/v1/channels/{topic}/publications");
                by_http(service, Method::POST, &path, Some(data.clone())).await
            }
        }
    }

    fn acknowledged(&mut self, write: Write, answer: &Json) {
        let number = match &write {
            Write::Create { metadata } => {
                let id = answer["id"].as_str().expect("an id").to_owned();
                let token = answer["token"].as_str().map(str::to_owned);
                self.sessions.insert(id, Session { metadata: metadata.clone(), token });
                None
            }
            Write::Update { session, metadata } => {
                self.sessions.get_mut(session).expect("its own").metadata = metadata.clone();
                None
            }
            Write::Destroy { session } => {
                self.sessions.remove(session);
                None
            }
            Write::Change { topic, key, after, .. } => {
                assert_eq!(answer.get("value"), after.as_ref(), "{write:?}: {answer}");
                let revision = answer["revision"].as_u64().expect("a revision");
                let held = Held { revision, value: after.clone() };
                self.entries.insert((topic.clone(), key.clone()), held);
                Some(revision)
            }
            Write::Publish { .. } => answer["offset"].as_u64(),
        };
        self.done.push(Done { worker: self.number, write, number });
    }

    /// The unanswered change of a document, or publication, was found to have happened.
    pub(super) fn has_happened(&mut self, number: u64) {
        if let Some(Write::Change { topic, key, after, .. }) = self.unanswered.take() {
            self.entries.insert((topic, key), Held { revision: number, value: after });
        }
    }

    /// What a document should hold of this worker's entries, deleted ones too.
    pub(super) fn entries_of(&self, topic: &str) -> Vec<(String, Held)> {
        let of_topic = self.entries.iter().filter(|((of, _), _)| of == topic);
        of_topic.map(|((_, key), held)| (key.clone(), held.clone())).collect()
    }

    /// Compares the sessions, and takes over what the node says about an unanswered write:
    /// what is wrong, and whether that write has happened.
    pub(super) async fn audit_sessions(mut self, service: Client) -> (Self, Vec<String>, bool) {
        let mut wrong = Vec::new();
        let user = format!("u{}", self.number);
        let listed: Json =
            service.get(&format!("/crosstown/v1/sessions?user={user}")).await.expect("a list");
        let listed = listed["sessions"].as_array().cloned().unwrap_or_default();
        let mut found: BTreeMap<String, Json> = listed
            .iter()
            .map(|session| (session["id"].as_str().expect("an id").to_owned(), session.clone()))
            .collect();
        let unanswered = self.unanswered.take();
        let mut happened = false;
        match &unanswered {
            Some(Write::Create { metadata }) => {
                let made: Vec<String> = found
                    .iter()
                    .filter(|(_, session)| session["metadata"] == *metadata)
                    .map(|(id, _)| id.clone())
                    .collect();
                if made.len() > 1 {
                    wrong.push(format!("{user}: one creation made {made:?}"));
                }
                for id in made {
                    happened = true;
                    let session = Session { metadata: metadata.clone(), token: None };
                    self.sessions.insert(id, session);
                }
            }
            Some(Write::Update { session, metadata })
                if found.get(session).is_some_and(|s| s["metadata"] == *metadata) =>
            {
                happened = true;
                self.sessions.get_mut(session).expect("its own").metadata = metadata.clone();
            }
            Some(Write::Destroy { session }) if !found.contains_key(session) => {
                happened = true;
                self.sessions.remove(session);
            }
            Some(_) | None => {}
        }
        for (id, session) in &self.sessions {
            match found.remove(id) {
                None => wrong.push(format!("{user}: session {id} is missing")),
                Some(seen) if seen["metadata"] != session.metadata => wrong.push(format!(
                    "{user}: session {id} holds {}, not {}",
                    seen["metadata"], session.metadata
                )),
                Some(_) => {}
            }
        }
        for (id, session) in found {
            wrong.push(format!("{user}: session {id} should not be there: {session}"));
        }
        if let Some((id, token)) =
            self.sessions.iter().find_map(|(id, s)| s.token.as_ref().map(|token| (id, token)))
        {
            let who = service.with_credential(token).get::<Json>("/crosstown/v1/whoami").await;
            if !who.as_ref().is_ok_and(|who| who["session"] == **id && who["principal"] == user) {
                wrong.push(format!("{user}: the token of {id} is answered with {who:?}"));
            }
        }
        for done in &self.done {
            if let Write::Destroy { session } = &done.write {
                let read = service.get::<Json>(&format!("/crosstown/v1/sessions/{session}")).await;
                if read.as_ref().err().and_then(client::Error::code) != Some("not_found") {
                    wrong.push(format!("{user}: destroyed session {session} answers {read:?}"));
                }
            }
        }
        (self, wrong, happened)
    }
}

async fn by_http(service: &Client, method: Method, path: &str, body: Option<Json>) -> Option<Json> {
    let body = body.map(|body| body.to_string().into_bytes());
    let answer = service.call(method.clone(), path, body).await.ok()?;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(answer.status.is_success(), "{method} {path}: {} {text}", answer.status);
    Some(serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn answered(write: &Write, answer: Result<Json, Json>) -> Option<Json> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Json::Null) => None,
        Err(error) => panic!("{write:?}: {error}"),
    }
}
