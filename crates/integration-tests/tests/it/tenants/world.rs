//! What all workers know: whose is what, and what each tenant has done.

use super::limits::Probes;
use client::Client;
use integration_tests::{Random, Server};
use serde_json::{Value as Json, json};
use std::{
    collections::HashMap,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(super) const TENANTS: [&str; 3] = ["acme", "bolt", "cord"];
const API_KEYS: usize = 4;
/// `ses_` and what follows.
const SESSION_ID_BYTES: usize = 36;

pub(super) struct Tenant {
    pub(super) name: &'static str,
    /// A client with the API key of a service.
    pub(super) service: Client,
    pub(super) service_key: String,
    /// Ids of its API keys.
    pub(super) keys: Vec<String>,
    /// Living sessions and their tokens.
    pub(super) sessions: Mutex<Vec<(String, String)>>,
    /// Epochs of documents and channels that only this tenant has.
    pub(super) epochs: Mutex<HashMap<String, String>>,
    pub(super) lobby: AtomicUsize,
    pub(super) probes: tokio::sync::Mutex<Probes>,
    pub(super) requests: AtomicUsize,
    client_errors: AtomicUsize,
    limited: AtomicUsize,
}

impl Tenant {
    /// Remembers a request that the node knows to be this tenant's.
    pub(super) fn count(&self, status: u16) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.client_errors.fetch_add(usize::from(status / 100 == 4), Ordering::SeqCst);
        self.limited.fetch_add(usize::from(status == 429), Ordering::SeqCst);
    }

    /// Requests, those of them refused, and those refused by a limit.
    pub(super) fn counted(&self) -> [usize; 3] {
        [&self.requests, &self.client_errors, &self.limited]
            .map(|counter| counter.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
pub(super) struct World {
    pub(super) tenants: Vec<Tenant>,
    /// Whose each session and API key is, by id.
    owners: RwLock<HashMap<String, usize>>,
    /// Workers that are not done yet.
    pub(super) working: AtomicUsize,
    pub(super) operations: AtomicUsize,
    pub(super) foreign: AtomicUsize,
    pub(super) compared: AtomicUsize,
    pub(super) pushes: AtomicUsize,
    pub(super) cross_reads: AtomicUsize,
    pub(super) surprises: AtomicUsize,
    /// The first things that went wrong.
    pub(super) wrong: Mutex<Vec<String>>,
}

impl World {
    pub(super) async fn new(server: &Server) -> Self {
        let mut world = Self::default();
        for (at, name) in TENANTS.into_iter().enumerate() {
            let service_key = server.api_key(name, "clerk").await;
            for _ in 1..API_KEYS {
                server.api_key(name, "clerk").await;
            }
            let listed = server.admin().get::<Json>(&format!("/api-keys?tenant={name}")).await;
            let listed = listed.expect("API keys");
            let ids = listed["api_keys"].as_array().expect("a list").iter();
            let ids: Vec<String> =
                ids.map(|key| key["id"].as_str().expect("an id").to_owned()).collect();
            assert_eq!(ids.len(), API_KEYS);
            for id in &ids {
                world.belongs(id, at);
            }
            world.tenants.push(Tenant {
                name,
                service: Client::new(&server.base(), &service_key).expect("an address"),
                keys: ids,
                service_key,
                sessions: Mutex::default(),
                epochs: Mutex::default(),
                lobby: AtomicUsize::new(0),
                probes: tokio::sync::Mutex::default(),
                requests: AtomicUsize::new(0),
                client_errors: AtomicUsize::new(0),
                limited: AtomicUsize::new(0),
            });
            world.furnish(at).await;
        }
        world
    }

    /// Gives the tenant a user that only it has, with a session and a document.
    async fn furnish(&self, at: usize) {
        let tenant = &self.tenants[at];
        let user = format!("only-{}-user", tenant.name);
        let secret = json!({ "secret": format!("secret-of-{}-0", tenant.name) });
        let session = json!({ "metadata": secret });
        let path = format!("/crosstown/v1/sessions?user={user}");
        let made: Json = tenant.service.post(&path, &session).await.expect("a session");
        tenant.count(201);
        self.belongs(made["id"].as_str().expect("an id"), at);
        let document = tenant.service.document("user", &user);
        document.put("k0", &secret, None).await.expect("an entry");
        tenant.count(200);
    }

    /// Remembers whose a session or an API key is.
    pub(super) fn belongs(&self, id: &str, tenant: usize) {
        self.owners.write().unwrap().insert(id.to_owned(), tenant);
    }

    /// A living session of `tenant`, and its token.
    pub(super) fn session_of(&self, tenant: usize, random: &mut Random) -> (String, String) {
        let sessions = self.tenants[tenant].sessions.lock().unwrap();
        random.pick(&sessions).clone()
    }

    /// Looks through everything that `tenant` is told: `came`, upon having sent `sent`.
    pub(super) fn inspect(&self, tenant: usize, sent: &str, came: &str) {
        for other in TENANTS.iter().filter(|name| **name != TENANTS[tenant]) {
            let marks = [format!("secret-of-{other}-"), format!("\"tenant\":\"{other}\"")];
            for mark in marks.iter().filter(|mark| came.contains(*mark)) {
                self.cross_read(tenant, &format!("{mark} upon {sent}: {came}"));
            }
            let name = format!("only-{other}-");
            if came.contains(&name) && !sent.contains(&name) {
                self.cross_read(tenant, &format!("{name} upon {sent}: {came}"));
            }
        }
        let owners = self.owners.read().unwrap();
        for (at, _) in came.match_indices("ses_") {
            let id = came.get(at..at + SESSION_ID_BYTES).unwrap_or_default();
            let owner = owners.get(id).copied();
            if owner.is_some_and(|owner| owner != tenant) && !sent.contains(id) {
                self.cross_read(tenant, &format!("{id} upon {sent}: {came}"));
            }
        }
        for (at, other) in self.tenants.iter().enumerate().filter(|(at, _)| *at != tenant) {
            for id in &other.keys {
                if came.contains(id) && !sent.contains(id) {
                    self.cross_read(tenant, &format!("key {id} of {at} upon {sent}: {came}"));
                }
            }
        }
    }

    fn cross_read(&self, tenant: usize, what: &str) {
        self.cross_reads.fetch_add(1, Ordering::SeqCst);
        self.note(format!("{} was told {what}", TENANTS[tenant]));
    }

    /// Something is not as the model has it.
    pub(super) fn surprise(&self, what: String) {
        self.surprises.fetch_add(1, Ordering::SeqCst);
        self.note(what);
    }

    fn note(&self, mut what: String) {
        let mut wrong = self.wrong.lock().unwrap();
        if wrong.len() < 20 {
            what.truncate(what.char_indices().nth(600).map_or(what.len(), |(at, _)| at));
            wrong.push(what);
        }
    }

    /// Whether so much went wrong that the rest would tell nothing.
    pub(super) fn is_lost(&self) -> bool {
        self.wrong.lock().unwrap().len() >= 20
    }
}
