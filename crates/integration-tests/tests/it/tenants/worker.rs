//! One user of a tenant, who does one thing at a time and remembers all of it.

use super::{
    WORKERS,
    world::{TENANTS, World},
};
use client::{Answer, Client};
use http::Method;
use integration_tests::{Random, Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

const KEYS: usize = 6;
const SESSIONS_MIN: usize = 2;
const SESSIONS_MAX: usize = 6;
const SESSIONS: &str = "/crosstown/v1/sessions";

/// A document or channel that this worker alone writes, in its tenant.
#[derive(Default)]
pub(super) struct Stream {
    epoch: String,
    /// Every item, as subscribers get it.
    items: Vec<Json>,
    /// The last item that was pushed; none while there is no subscription.
    pushed: Option<usize>,
}

pub(super) struct Worker {
    pub(super) world: Arc<World>,
    pub(super) tenant: usize,
    pub(super) number: usize,
    /// For messages: `acme/u3`.
    pub(super) name: String,
    /// A client with the user's own token.
    pub(super) user: Client,
    pub(super) admin: Client,
    /// The node's address.
    pub(super) base: String,
    pub(super) socket: Socket,
    pub(super) random: Random,
    pub(super) taken_by_user: usize,
    socket_session: String,
    written: usize,
    documents: BTreeMap<String, Stream>,
    channels: BTreeMap<String, Stream>,
    /// Metadata and token by id.
    sessions: BTreeMap<String, (Json, String)>,
    /// Values in documents of the tenant that are named by another tenant's session.
    pub(super) planted: BTreeMap<String, Json>,
    /// The channel with another tenant's name that it subscribed to last; in its own tenant
    /// that is a channel like any other.
    pub(super) visited: String,
    lobby: usize,
}

/// What to ask of a document, by whichever way.
pub(super) enum Ask {
    Get(String),
    Put(String, Json),
    Patch(String, Json),
    Delete(String),
    Snapshot,
    Changes(String, u64),
    History(u64, usize),
}

/// By which way, and as whom.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    UserByHttp,
    ServiceByHttp,
    UserBySocket,
}

impl Worker {
    pub(super) async fn start(
        server: &Server,
        world: Arc<World>,
        tenant: usize,
        number: usize,
        random: Random,
    ) -> Self {
        let (of, user) = (TENANTS[tenant], format!("u{number}"));
        let token = server.token(of, &user);
        let mut socket = Socket::open(&server.base()).await;
        let told = socket.ask("connect", json!({ "token": token })).await.expect("a connection");
        let socket_session = told["data"]["session"].as_str().expect("a session").to_owned();
        world.belongs(&socket_session, tenant);
        let documents = [
            format!("user:{user}"),
            format!("pillar:p{number}"),
            format!("pillar:only-{of}-{number}"),
        ];
        let channels = [format!("room-{number}"), format!("only-{of}-{number}")];
        let streams =
            |names: &[String]| names.iter().map(|name| (name.clone(), Stream::default())).collect();
        let mut worker = Self {
            world,
            tenant,
            number,
            name: format!("{of}/{user}"),
            user: Client::new(&server.base(), &token).expect("an address"),
            admin: super::admin(server, &token),
            base: server.base(),
            socket,
            random,
            taken_by_user: 0,
            socket_session,
            written: 0,
            documents: streams(&documents),
            channels: streams(&channels),
            sessions: BTreeMap::new(),
            planted: BTreeMap::new(),
            visited: String::new(),
            lobby: 0,
        };
        for name in documents {
            worker.subscribe(&format!("state:{name}")).await;
        }
        for name in channels {
            worker.subscribe(&name).await;
        }
        worker.tell("subscribe", json!({ "channel": "lobby" })).await.expect("a subscription");
        for _ in 0..SESSIONS_MIN {
            worker.create_session().await;
        }
        worker
    }

    /// Does `steps` things.
    pub(super) async fn work(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            if self.world.is_lost() {
                break;
            }
            self.world.operations.fetch_add(1, Ordering::SeqCst);
            self.take_pushes();
            match self.random.below(100) {
                0..8 => self.write().await,
                8..32 => self.read().await,
                32..46 => self.do_with_sessions().await,
                46..52 => self.publish().await,
                52..57 => self.read_channel().await,
                57..59 => self.come_back().await,
                59..61 => self.lobby().await,
                61..63 => self.report().await,
                63..66 => self.probe().await,
                _ => self.trespass().await,
            }
        }
        self.world.working.fetch_sub(1, Ordering::SeqCst);
        // A client that does not read answers no pings, and is closed.
        while self.world.working.load(Ordering::SeqCst) > 0 {
            let _ = self.tell("ping", json!({})).await;
            self.take_pushes();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self
    }

    /// Waits for pushes that are still on their way.
    pub(super) async fn settle(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let _ = self.tell("ping", json!({})).await;
            self.take_pushes();
            let streams = self.documents.iter().chain(&self.channels);
            let mut behind: Vec<&String> = streams
                .filter(|(_, s)| s.pushed.is_some_and(|pushed| pushed < s.items.len()))
                .map(|(name, _)| name)
                .collect();
            let lobby = "lobby".to_owned();
            if self.lobby < self.world.tenants[self.tenant].lobby.load(Ordering::SeqCst) {
                behind.push(&lobby);
            }
            if behind.is_empty() || self.world.is_lost() {
                return;
            }
            if Instant::now() > until {
                return self.world.surprise(format!("{}: no push from {behind:?}", self.name));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Notes a comparison, and what it found.
    pub(super) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        self.world.compared.fetch_add(1, Ordering::SeqCst);
        if !holds {
            self.world.surprise(what());
        }
    }

    pub(super) fn secret(&mut self) -> Json {
        self.written += 1;
        let (tenant, worker, n) = (TENANTS[self.tenant], self.number, self.written);
        json!(format!("secret-of-{tenant}-{worker}-{n}"))
    }

    /// Calls with a credential that the node knows to be this tenant's.
    pub(super) async fn call_with(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> Answer {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let sent = format!("{method} {path} {}", body.unwrap_or(&Json::Null));
        let answer = client.call(method, path, bytes).await.expect("an answer");
        self.world.tenants[self.tenant].count(answer.status.as_u16());
        let text = String::from_utf8_lossy(&answer.body);
        self.world.inspect(self.tenant, &sent, &format!("{text} {:?}", answer.headers));
        let status = answer.status;
        if status.as_u16() >= 500 {
            self.world.surprise(format!("{}: {sent}: {status} {text}", self.name));
        }
        answer
    }

    /// As [`Self::call_with`]: the status and the JSON.
    pub(super) async fn call(
        &self,
        way: Way,
        method: Method,
        path: &str,
        body: Option<&Json>,
    ) -> (u16, Json) {
        let tenant = &self.world.tenants[self.tenant];
        let client = if way == Way::ServiceByHttp { &tenant.service } else { &self.user };
        let answer = self.call_with(client, method, path, body).await;
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// A command on the socket.
    pub(super) async fn tell(&mut self, command: &str, body: Json) -> Result<Json, Json> {
        let sent = format!("{command} {body}");
        let answer = self.socket.ask(command, body).await;
        let text = match &answer {
            Ok(told) | Err(told) => told.to_string(),
        };
        self.world.inspect(self.tenant, &sent, &text);
        answer
    }

    pub(super) fn any_way(&mut self) -> Way {
        *self.random.pick(&[Way::UserByHttp, Way::ServiceByHttp, Way::UserBySocket])
    }

    /// Asks for, or changes, a document `scope:id`: the answer, or the HTTP status.
    pub(super) async fn state(&mut self, way: Way, document: &str, ask: Ask) -> Result<Json, u16> {
        if way == Way::UserBySocket {
            let (method, mut data) = match ask {
                Ask::Get(key) => ("get", json!({ "key": key })),
                Ask::Put(key, value) => ("put", json!({ "key": key, "value": value })),
                Ask::Patch(key, value) => ("patch", json!({ "key": key, "value": value })),
                Ask::Delete(key) => ("delete", json!({ "key": key })),
                Ask::Snapshot => ("get", json!({})),
                Ask::Changes(epoch, revision) => {
                    ("changes", json!({ "epoch": epoch, "revision": revision }))
                }
                Ask::History(offset, limit) => {
                    ("history", json!({ "offset": offset, "limit": limit }))
                }
            };
            data["document"] = json!(document);
            let rpc = json!({ "method": format!("state.{method}"), "data": data });
            return match self.tell("rpc", rpc).await {
                Ok(told) => Ok(told["data"].clone()),
                Err(error) => Err(error["code"].as_u64().unwrap_or(0) as u16),
            };
        }
        let path = format!("/crosstown/v1/state/{}", document.replacen(':', "/", 1));
        let (method, path, body) = match ask {
            Ask::Get(key) => (Method::GET, format!("{path}/entries/{key}"), None),
            Ask::Put(key, value) => (Method::PUT, format!("{path}/entries/{key}"), Some(value)),
            Ask::Patch(key, value) => (Method::PATCH, format!("{path}/entries/{key}"), Some(value)),
            Ask::Delete(key) => (Method::DELETE, format!("{path}/entries/{key}"), None),
            Ask::Snapshot => (Method::GET, path, None),
            Ask::Changes(epoch, revision) => {
                (Method::GET, format!("{path}/changes?epoch={epoch}&revision={revision}"), None)
            }
            Ask::History(offset, limit) => {
                (Method::GET, format!("{path}/history?offset={offset}&limit={limit}"), None)
            }
        };
        let (status, told) = self.call(way, method, &path, body.as_ref()).await;
        if status < 300 { Ok(told) } else { Err(status) }
    }

    fn own_document(&mut self) -> String {
        let names: Vec<&String> = self.documents.keys().collect();
        (*self.random.pick(&names)).clone()
    }

    fn own_channel(&mut self) -> String {
        let names: Vec<&String> = self.channels.keys().collect();
        (*self.random.pick(&names)).clone()
    }

    async fn write(&mut self) {
        let (document, way) = (self.own_document(), self.any_way());
        let key = format!("k{}", self.random.below(KEYS));
        let secret = self.secret();
        let entries = self.documents[&document].entries();
        let held = entries.get(&key).and_then(|change| change.get("value")).cloned();
        let (ask, after) = match self.random.below(5) {
            0 => (Ask::Delete(key.clone()), None),
            1 => {
                let mut after = held.clone().unwrap_or_else(|| json!({}));
                after["more"] = secret.clone();
                (Ask::Patch(key.clone(), json!({ "more": secret })), Some(after))
            }
            _ => {
                let value = json!({ "secret": secret });
                (Ask::Put(key.clone(), value.clone()), Some(value))
            }
        };
        let told = self.state(way, &document, ask).await;
        let name = self.name.clone();
        if after.is_none() && held.is_none() {
            return self.check(told == Err(404), || format!("{name}: {document} {key}: {told:?}"));
        }
        let Ok(told) = told else {
            return self.check(false, || format!("{name}: writing {document} {key}: {told:?}"));
        };
        let stream = self.documents.get_mut(&document).expect("its own");
        let mut change = json!({ "key": key, "revision": told["revision"] });
        match &after {
            Some(value) => change["value"] = value.clone(),
            None => change["deleted"] = json!(true),
        }
        let revision = stream.revision();
        stream.items.push(change);
        let fits = told["epoch"] == stream.epoch
            && told["revision"].as_u64() > Some(revision)
            && told.get("value") == after.as_ref();
        self.check(fits, || format!("{name}: {document} {key} after {revision}: {told}"));
    }

    async fn read(&mut self) {
        let (document, way, name) = (self.own_document(), self.any_way(), self.name.clone());
        let key = format!("k{}", self.random.below(KEYS));
        let what = self.random.below(10);
        let dice = self.random.next() as usize;
        let stream = &self.documents[&document];
        let entries = stream.entries();
        let living: Vec<&Json> = entries.values().filter(|c| c.get("value").is_some()).collect();
        let (ask, expected) = match what {
            0..=5 => {
                let held = entries.get(&key).filter(|change| change.get("value").is_some());
                (Ask::Get(key), held.cloned().ok_or(404))
            }
            6 => (
                Ask::Snapshot,
                Ok(json!({
                    "epoch": stream.epoch, "revision": stream.revision(), "entries": living,
                })),
            ),
            7 if !stream.items.is_empty() => {
                let since = &stream.items[dice % stream.items.len()]["revision"];
                let since = since.as_u64().expect("a revision");
                let is_later = |change: &&Json| change["revision"].as_u64() > Some(since);
                let mut later: Vec<&Json> = entries.values().filter(is_later).collect();
                later.sort_by_key(|change| change["revision"].as_u64());
                (
                    Ask::Changes(stream.epoch.clone(), since),
                    Ok(json!({
                        "epoch": stream.epoch, "revision": stream.revision(), "changes": later,
                    })),
                )
            }
            _ => {
                let from = dice % (stream.items.len() + 1);
                let page: Vec<&Json> = stream.items[from..].iter().take(10).collect();
                (Ask::History(from as u64 + 1, 10), Ok(json!({ "entries": page })))
            }
        };
        let mut told = self.state(way, &document, ask).await;
        if let Ok(told) = &mut told
            && what > 6
            && let Some(entries) = told.get_mut("entries").and_then(Json::as_array_mut)
        {
            for entry in entries {
                let entry = entry.as_object_mut().expect("an object");
                for circumstance in ["offset", "by", "at"] {
                    entry.remove(circumstance);
                }
            }
        }
        self.check(told == expected, || format!("{name}: {document}: {told:?} not {expected:?}"));
    }

    async fn create_session(&mut self) {
        let metadata = json!({ "secret": self.secret() });
        let body = json!({ "metadata": metadata });
        let (way, path) = match self.random.below(2) {
            0 => (Way::UserByHttp, SESSIONS.to_owned()),
            _ => (Way::ServiceByHttp, format!("{SESSIONS}?user=u{}", self.number)),
        };
        let (status, told) = self.call(way, Method::POST, &path, Some(&body)).await;
        let (Some(id), Some(token)) = (told["id"].as_str(), told["token"].as_str()) else {
            return self.check(false, || format!("{}: no session: {status} {told}", self.name));
        };
        self.world.belongs(id, self.tenant);
        let of_tenant = &self.world.tenants[self.tenant].sessions;
        of_tenant.lock().unwrap().push((id.to_owned(), token.to_owned()));
        self.sessions.insert(id.to_owned(), (metadata, token.to_owned()));
    }

    async fn do_with_sessions(&mut self) {
        let ids: Vec<&String> = self.sessions.keys().collect();
        let Some(id) = ids.get(self.random.below(ids.len().max(1))).map(|id| (*id).clone()) else {
            return self.create_session().await;
        };
        let (metadata, token) = self.sessions[&id].clone();
        let way = *self.random.pick(&[Way::UserByHttp, Way::ServiceByHttp]);
        let path = format!("{SESSIONS}/{id}");
        let name = self.name.clone();
        match self.random.below(14) {
            0 if self.sessions.len() < SESSIONS_MAX => self.create_session().await,
            1 if self.sessions.len() > SESSIONS_MIN => {
                let of_tenant = &self.world.tenants[self.tenant].sessions;
                of_tenant.lock().unwrap().retain(|(held, _)| *held != id);
                self.sessions.remove(&id);
                let (status, told) = self.call(way, Method::DELETE, &path, None).await;
                self.check(status == 204, || format!("{name}: ending {id}: {status} {told}"));
                let (status, _) = self.call(way, Method::GET, &path, None).await;
                self.check(status == 404, || format!("{name}: ended {id} answers {status}"));
            }
            2 => {
                let metadata = json!({ "secret": self.secret() });
                let body = json!({ "metadata": metadata });
                let (status, told) = self.call(way, Method::PATCH, &path, Some(&body)).await;
                self.sessions.get_mut(&id).expect("its own").0 = metadata.clone();
                let fits = status == 200 && told["metadata"] == metadata;
                self.check(fits, || format!("{name}: changing {id}: {status} {told}"));
            }
            3 => {
                let path = format!("{path}/refresh");
                let (status, told) = self.call(way, Method::POST, &path, None).await;
                let fits = status == 200 && told["metadata"] == metadata;
                self.check(fits, || format!("{name}: refreshing {id}: {status} {told}"));
            }
            4 => {
                let path = format!("{SESSIONS}?user=u{}", self.number);
                let (_, told) = self.call(way, Method::GET, &path, None).await;
                let listed: BTreeMap<&str, &Json> = told["sessions"]
                    .as_array()
                    .iter()
                    .flat_map(|sessions| sessions.iter())
                    .map(|session| (session["id"].as_str().unwrap_or(""), &session["metadata"]))
                    .collect();
                let none = json!({});
                let mut expected: BTreeMap<&str, &Json> =
                    self.sessions.iter().map(|(id, (held, _))| (id.as_str(), held)).collect();
                expected.insert(&self.socket_session, &none);
                let fits = listed == expected;
                self.check(fits, || format!("{name}: sessions {listed:?}, not {expected:?}"));
            }
            5 => {
                let client = self.user.with_credential(&token);
                let path = "/crosstown/v1/whoami";
                let answer = self.call_with(&client, Method::GET, path, None).await;
                let told: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
                let fits = told["session"] == *id && told["tenant"] == TENANTS[self.tenant];
                self.check(fits, || format!("{name}: the token of {id}: {told}"));
            }
            6 => {
                let client = self.user.with_credential(&token);
                let path = format!("/crosstown/v1/state/session/{id}/entries/k");
                let value = self.secret();
                self.call_with(&client, Method::PUT, &path, Some(&value)).await;
                let (status, told) = self.call(Way::ServiceByHttp, Method::GET, &path, None).await;
                let fits = told["value"] == value;
                self.check(fits, || format!("{name}: {path}: {status} {told}, not {value}"));
            }
            _ => {
                let (status, told) = self.call(way, Method::GET, &path, None).await;
                let fits = status == 200 && told["metadata"] == metadata;
                self.check(fits, || format!("{name}: {id}: {status} {told}, not {metadata}"));
            }
        }
    }

    /// Publishes to a channel, whoever writes it.
    pub(super) async fn publish_to(&mut self, channel: &str, data: &Json) -> bool {
        if self.random.percent(50) {
            let body = json!({ "channel": channel, "data": data });
            return self.tell("publish", body).await.is_ok();
        }
        let path = format!("/crosstown/v1/channels/{channel}/publications");
        let way = *self.random.pick(&[Way::UserByHttp, Way::ServiceByHttp]);
        self.call(way, Method::POST, &path, Some(data)).await.0 == 201
    }

    async fn publish(&mut self) {
        let (channel, data) = (self.own_channel(), json!({ "secret": self.secret() }));
        let done = self.publish_to(&channel, &data).await;
        self.channels.get_mut(&channel).expect("its own").items.push(data);
        self.check(done, || format!("{}: publishing to {channel}", self.name));
    }

    async fn lobby(&mut self) {
        let data = json!({ "secret": self.secret() });
        let done = self.publish_to("lobby", &data).await;
        self.world.tenants[self.tenant].lobby.fetch_add(1, Ordering::SeqCst);
        self.check(done, || format!("{}: publishing to the lobby", self.name));
    }

    async fn read_channel(&mut self) {
        let channel = self.own_channel();
        let stream = &self.channels[&channel];
        let after = self.random.below(stream.items.len() + 1);
        let wish = json!({
            "channel": channel, "limit": 10, "since": { "offset": after, "epoch": stream.epoch },
        });
        let expected: Vec<Json> = stream.items[after..].iter().take(10).cloned().collect();
        let told = self.tell("history", wish).await;
        let got = told.as_ref().map(publications).unwrap_or_default();
        let name = &self.name;
        self.check(got == expected, || format!("{name}: {channel} after {after}: {told:?}"));
    }

    async fn subscribe(&mut self, channel: &str) {
        let wish = json!({ "channel": channel, "recoverable": true });
        let told = self.tell("subscribe", wish).await.expect("a subscription");
        let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
        if channel.contains("only-") {
            let epochs = &self.world.tenants[self.tenant].epochs;
            epochs.lock().unwrap().insert(channel.to_owned(), epoch.clone());
        }
        let stream = self.stream(channel).expect("its own");
        (stream.epoch, stream.pushed) = (epoch, Some(0));
        self.check(told.get("offset").is_none(), || format!("{channel} is not new: {told}"));
    }

    /// Leaves a channel, writes to it, and recovers what it missed.
    async fn come_back(&mut self) {
        let channel = self.own_channel();
        self.tell("unsubscribe", json!({ "channel": channel })).await.expect("an answer");
        self.take_pushes();
        let known = self.channels[&channel].pushed.unwrap_or(0);
        self.channels.get_mut(&channel).expect("its own").pushed = None;
        let data = json!({ "secret": self.secret() });
        let done = self.publish_to(&channel, &data).await;
        let stream = self.channels.get_mut(&channel).expect("its own");
        stream.items.push(data);
        let expected = stream.items[known..].to_vec();
        stream.pushed = Some(stream.items.len());
        let wish = json!({
            "channel": channel, "recover": true, "epoch": stream.epoch, "offset": known,
        });
        let told = self.tell("subscribe", wish).await;
        let got = told.as_ref().map(publications).unwrap_or_default();
        let recovered = told.as_ref().is_ok_and(|told| told["recovered"] == true);
        let fits = done && recovered && got == expected;
        self.check(fits, || format!("{}: {channel} after {known}: {told:?}", self.name));
    }

    fn stream(&mut self, channel: &str) -> Option<&mut Stream> {
        match channel.strip_prefix("state:") {
            Some(document) => self.documents.get_mut(document),
            None => self.channels.get_mut(channel),
        }
    }

    /// Compares what was pushed with what was written.
    fn take_pushes(&mut self) {
        while let Some(push) = self.socket.push_now() {
            let channel = push["channel"].as_str().unwrap_or_default().to_owned();
            let visited = channel == self.visited;
            let sent = if visited { channel.as_str() } else { "" };
            self.world.inspect(self.tenant, sent, &push.to_string());
            self.world.pushes.fetch_add(1, Ordering::SeqCst);
            let (offset, data) = (push["pub"]["offset"].as_u64(), &push["pub"]["data"]);
            let own = format!("secret-of-{}-", TENANTS[self.tenant]);
            let fits = if channel == "lobby" {
                self.lobby += 1;
                offset == Some(self.lobby as u64) && data.to_string().contains(&own)
            } else if let Some(stream) = self.stream(&channel) {
                let next = stream.pushed.map(|pushed| pushed + 1);
                stream.pushed = next;
                next.is_some_and(|next| {
                    offset == Some(next as u64) && stream.items.get(next - 1) == Some(data)
                })
            } else {
                visited && data.to_string().contains(&own)
            };
            self.check(fits, || format!("{}: an unexpected push: {push}", self.name));
        }
    }

    /// The tenant's report, while others are busy: never more than the tenant has done.
    async fn report(&mut self) {
        let told = if self.random.percent(50) {
            let rpc = json!({ "method": "traffic.report", "data": { "range": "1h" } });
            self.tell("rpc", rpc).await.map(|told| told["data"].clone()).unwrap_or_default()
        } else {
            let path = "/crosstown/v1/analytics/traffic?range=1h";
            self.call(Way::UserByHttp, Method::GET, path, None).await.1
        };
        // Requests under way are counted by the node before their answer is seen here.
        let most = self.world.tenants[self.tenant].counted()[0] + WORKERS;
        let counted = told["total"]["requests"].as_u64();
        let fits = counted.is_some_and(|counted| counted as usize <= most)
            && told.get("tenants").is_none();
        self.check(fits, || format!("{}: at most {most} requests, not {told}", self.name));
    }
}

impl Stream {
    fn revision(&self) -> u64 {
        self.items.last().and_then(|change| change["revision"].as_u64()).unwrap_or(0)
    }

    /// The latest change of each key, by key.
    fn entries(&self) -> BTreeMap<String, Json> {
        let keyed =
            |change: &Json| (change["key"].as_str().unwrap_or("").to_owned(), change.clone());
        self.items.iter().map(keyed).collect()
    }
}

pub(super) fn publications(told: &Json) -> Vec<Json> {
    let list = told["publications"].as_array();
    list.iter()
        .flat_map(|list| list.iter())
        .map(|publication| publication["data"].clone())
        .collect()
}
