//! What names another tenant's real ids.

use super::{
    WORKERS,
    worker::{Ask, Way, Worker, publications},
    world::TENANTS,
};
use http::Method;
use integration_tests::Socket;
use serde_json::{Value as Json, json};
use std::sync::atomic::Ordering;

/// Whether an answer is one that shows nothing.
type IsRight = fn(&Result<Json, u16>) -> bool;

impl Worker {
    /// Reaches for what is another tenant's, and finds nothing.
    pub(super) async fn trespass(&mut self) {
        self.world.foreign.fetch_add(1, Ordering::SeqCst);
        let other = (self.tenant + 1 + self.random.below(2)) % TENANTS.len();
        match self.random.below(20) {
            0..=3 => self.reach_for_session(other).await,
            4..=6 => self.reach_for_session_document(other).await,
            7..=10 => self.reach_for_document(other).await,
            11..=12 => self.reach_for_user(other).await,
            13..=15 => self.reach_for_channel(other).await,
            16..=17 => self.forge(other).await,
            _ => self.reach_for_operators_ids(other).await,
        }
    }

    async fn expect(&self, way: Way, method: Method, path: &str, body: Option<Json>, status: u16) {
        let (got, told) = self.call(way, method.clone(), path, body.as_ref()).await;
        let name = &self.name;
        self.check(got == status, || format!("{name}: {method} {path}: {got} {told}"));
    }

    async fn reach_for_session(&mut self, other: usize) {
        let (id, _) = self.world.session_of(other, &mut self.random);
        let path = format!("/crosstown/v1/sessions/{id}");
        let way = *self.random.pick(&[Way::UserByHttp, Way::ServiceByHttp]);
        let (method, path, body) = match self.random.below(5) {
            0 => (Method::PATCH, path, Some(json!({ "status": "suspended" }))),
            1 => (Method::PATCH, path, Some(json!({ "metadata": { "secret": self.secret() } }))),
            2 => (Method::DELETE, path, None),
            3 => (Method::POST, format!("{path}/refresh"), None),
            _ => (Method::GET, path, None),
        };
        self.expect(way, method, &path, body, 404).await;
    }

    /// A document named by another tenant's session: closed to users; services find, under
    /// that name, what their own tenant has put there.
    async fn reach_for_session_document(&mut self, other: usize) {
        let (id, _) = self.world.session_of(other, &mut self.random);
        let (document, way, name) = (format!("session:{id}"), self.any_way(), self.name.clone());
        let key = format!("planted-{}", self.number);
        if way == Way::UserBySocket && self.random.percent(30) {
            let told = self.tell("subscribe", json!({ "channel": format!("state:{document}") }));
            let told = told.await;
            let refused = told.as_ref().is_err_and(|error| error["code"] == 103);
            return self.check(refused, || format!("{name}: subscribing to {document}: {told:?}"));
        }
        let planted = self.planted.get(&id).cloned();
        let (ask, expected) = match (self.random.below(4), way) {
            (0, Way::ServiceByHttp) => {
                let value = self.secret();
                let told = self.state(way, &document, Ask::Put(key, value.clone())).await;
                self.check(told.is_ok(), || format!("{name}: planting in {document}: {told:?}"));
                self.planted.insert(id, value);
                return;
            }
            (0, _) => (Ask::Put(key, self.secret()), None),
            // The owner writes the entry `k`, in its own tenant.
            (1, _) => (Ask::Get("k".into()), None),
            (2, _) => (Ask::Delete("k".into()), None),
            _ => (Ask::Get(key), planted),
        };
        let told = self.state(way, &document, ask).await;
        let fits = match (way, &expected) {
            (Way::ServiceByHttp, Some(value)) => {
                told.as_ref().is_ok_and(|told| told["value"] == *value)
            }
            (Way::ServiceByHttp, None) => told == Err(404),
            (Way::UserByHttp | Way::UserBySocket, _) => told == Err(403),
        };
        self.check(fits, || format!("{name}: {document}: {told:?}, not {expected:?}"));
    }

    /// A document that only the other tenant has.
    async fn reach_for_document(&mut self, other: usize) {
        let of = TENANTS[other];
        let document = format!("pillar:only-{of}-{}", self.random.below(WORKERS));
        let (way, name) = (self.any_way(), self.name.clone());
        let key = format!("k{}", self.random.below(6));
        let channel = format!("state:{document}");
        let epoch = self.world.tenants[other].epochs.lock().unwrap().get(&channel).cloned();
        let epoch = epoch.unwrap_or_else(|| "1".into());
        let (ask, is_right): (Ask, IsRight) = match self.random.below(6) {
            0 => (Ask::Get(key), |told| *told == Err(404)),
            1 => (Ask::Delete(key), |told| *told == Err(404)),
            2 => (Ask::Snapshot, |told| {
                told.as_ref()
                    .is_ok_and(|told| told["entries"] == json!([]) && told["revision"] == 0)
            }),
            3 => (Ask::History(1, 10), |told| *told == Ok(json!({ "entries": [] }))),
            4 => (Ask::Changes(epoch, 1), |told| *told == Err(410)),
            _ => {
                // The epoch is the other tenant's: there is nothing to recover from.
                let wish =
                    json!({ "channel": channel, "recover": true, "epoch": epoch, "offset": 0 });
                let told = self.tell("subscribe", wish).await;
                let fits = told.as_ref().is_ok_and(|told| {
                    told["recovered"] != true
                        && told["epoch"] != epoch
                        && publications(told).is_empty()
                });
                self.check(fits, || format!("{name}: recovering {channel}: {told:?}"));
                let left = self.tell("unsubscribe", json!({ "channel": channel })).await;
                return self.check(left.is_ok(), || format!("{name}: leaving {channel}: {left:?}"));
            }
        };
        let told = self.state(way, &document, ask).await;
        self.check(is_right(&told), || format!("{name}: {document}: {told:?}"));
    }

    /// A user that only the other tenant has.
    async fn reach_for_user(&mut self, other: usize) {
        let user = format!("only-{}-user", TENANTS[other]);
        let (name, sessions) = (self.name.clone(), format!("/crosstown/v1/sessions?user={user}"));
        match self.random.below(4) {
            0 => self.expect(Way::UserByHttp, Method::GET, &sessions, None, 403).await,
            1 => {
                let (_, told) = self.call(Way::ServiceByHttp, Method::GET, &sessions, None).await;
                let fits = told == json!({ "sessions": [] });
                self.check(fits, || format!("{name}: {sessions}: {told}"));
            }
            2 => {
                let document = format!("user:{user}");
                let told = self.state(Way::ServiceByHttp, &document, Ask::Snapshot).await;
                let fits = told.as_ref().is_ok_and(|told| told["entries"] == json!([]));
                self.check(fits, || format!("{name}: {document}: {told:?}"));
            }
            _ => {
                let channel = format!("#{user}");
                let told = self.tell("subscribe", json!({ "channel": channel })).await;
                let refused = told.as_ref().is_err_and(|error| error["code"] == 103);
                self.check(refused, || format!("{name}: {channel}: {told:?}"));
            }
        }
    }

    /// A channel that only the other tenant's worker writes, and others of this tenant's
    /// reach for as well.
    async fn reach_for_channel(&mut self, other: usize) {
        let channel = format!("only-{}-{}", TENANTS[other], self.random.below(WORKERS));
        let epoch = self.world.tenants[other].epochs.lock().unwrap().get(&channel).cloned();
        let epoch = epoch.unwrap_or_else(|| "1".into());
        let (name, own) = (self.name.clone(), format!("secret-of-{}-", TENANTS[self.tenant]));
        match self.random.below(4) {
            0 => {
                let data = json!({ "secret": self.secret() });
                let done = self.publish_to(&channel, &data).await;
                self.check(done, || format!("{name}: publishing to {channel}"));
            }
            1 => {
                let since = json!({ "offset": 1, "epoch": epoch });
                let wish = json!({ "channel": channel, "limit": 10, "since": since });
                let told = self.tell("history", wish).await;
                let refused = told.as_ref().is_err_and(|error| error["code"] == 112);
                self.check(refused, || format!("{name}: history of {channel}: {told:?}"));
            }
            2 => {
                let wish = json!({ "channel": channel, "limit": 10, "reverse": true });
                let told = self.tell("history", wish).await;
                let fits = told.as_ref().is_ok_and(|told| {
                    publications(told).iter().all(|data| data.to_string().contains(&own))
                });
                self.check(fits, || format!("{name}: history of {channel}: {told:?}"));
            }
            _ => {
                let wish =
                    json!({ "channel": channel, "recover": true, "epoch": epoch, "offset": 1 });
                self.visited.clone_from(&channel);
                let told = self.tell("subscribe", wish).await;
                let fits = told.as_ref().is_ok_and(|told| {
                    told["recovered"] != true
                        && told["epoch"] != epoch
                        && publications(told).is_empty()
                });
                self.check(fits, || format!("{name}: recovering {channel}: {told:?}"));
                let left = self.tell("unsubscribe", json!({ "channel": channel })).await;
                self.check(left.is_ok(), || format!("{name}: leaving {channel}: {left:?}"));
            }
        }
    }

    /// Credentials with parts of another tenant's.
    async fn forge(&mut self, other: usize) {
        let (own, of) = (TENANTS[self.tenant], TENANTS[other]);
        let (id, token) = self.world.session_of(other, &mut self.random);
        let (_, own_token) = self.world.session_of(self.tenant, &mut self.random);
        let secret = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
        let (theirs, ours) = (&self.world.tenants[other], &self.world.tenants[self.tenant]);
        let key = self.random.pick(&theirs.keys).clone();
        let (key_secret, own_key_secret) = (secret(&theirs.service_key), secret(&ours.service_key));
        let forged = match self.random.below(5) {
            0 => format!("cst_{own}.{id}.{}", secret(&token)),
            1 => format!("cst_{of}.{id}.{}", secret(&own_token)),
            2 => format!("ctk_{own}.{key}.{key_secret}"),
            3 => format!("ctk_{of}.{key}.{own_key_secret}"),
            _ => format!("cst_{own}.{id}.{}", secret(&own_token)),
        };
        let client = self.user.with_credential(&forged);
        // Nobody's request: it counts for no tenant.
        let answer =
            client.call(Method::GET, "/crosstown/v1/whoami", None).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        self.world.inspect(self.tenant, &forged, &text);
        let refused = answer.status.as_u16() == 401;
        self.check(refused, || format!("{}: {forged}: {} {text}", self.name, answer.status));
        if self.random.percent(5) {
            let mut socket = Socket::open(&self.base).await;
            socket.send_raw(&json!({ "id": 1, "connect": { "token": forged } }).to_string()).await;
            let code = socket.close_code().await;
            self.check(code == 3500, || format!("{}: {forged}: closed with {code}", self.name));
        }
    }

    /// The operator's listener takes no tenant's credential.
    async fn reach_for_operators_ids(&mut self, other: usize) {
        let of = TENANTS[other];
        let key = self.random.pick(&self.world.tenants[other].keys).clone();
        let (method, path, body) = match self.random.below(6) {
            0 => (Method::GET, "/metrics".to_owned(), None),
            1 => (Method::GET, "/config".to_owned(), None),
            2 => (Method::GET, "/analytics/traffic?range=1h".to_owned(), None),
            3 => (Method::GET, format!("/api-keys?tenant={of}"), None),
            4 => (Method::DELETE, format!("/api-keys/{of}/{key}"), None),
            _ => (
                Method::POST,
                "/api-keys".to_owned(),
                Some(json!({ "tenant": of, "principal": "x" })),
            ),
        };
        if !path.contains(&key) && body.is_none() && !path.contains(of) {
            // It names no id; it is an operation all the same.
            self.world.foreign.fetch_sub(1, Ordering::SeqCst);
        }
        let key_of_service = self.world.tenants[self.tenant].service_key.clone();
        let admin = match self.random.below(2) {
            0 => self.admin.clone(),
            _ => self.admin.with_credential(&key_of_service),
        };
        let sent = format!("{method} {path}");
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = admin.call(method, &path, body).await.expect("an answer");
        let text = String::from_utf8_lossy(&answer.body);
        self.world.inspect(self.tenant, &sent, &format!("{text} {:?}", answer.headers));
        let refused = answer.status.as_u16() == 401;
        self.check(refused, || format!("{}: {sent}: {} {text}", self.name, answer.status));
    }
}
