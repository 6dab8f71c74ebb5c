//! The layers, as the node wires them, with the shipped defaults.

use crate::{Operation, Work, engine, entry, limits, session, told};
use async_trait::async_trait;
use clock::{SharedClock, SystemClock};
use realtime::{Publications, Realtime};
use std::collections::BTreeMap;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use store::SharedStore;
use traffic_cop::{
    analytics::Analytics,
    genesis::Genesis,
    identity::{CallerCache, Identity, Revocations, api_key::ApiKeys, issuer::Issuers},
    limit::{Limits, Shared},
    session::{NewSession, Sessions},
    state::{DocumentId, Operation as Change, States},
};
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, SessionId, TenantId};

/// A caller of a core remembers so many callers, as the node's cores do.
const CALLERS: usize = 16 * 1024;

pub(crate) async fn prepare(
    url: &str,
    operation: Operation,
    tasks: usize,
) -> Result<Arc<dyn Work>, String> {
    let clock = SystemClock::shared();
    let store = engine::open(url, &clock).await?;
    Ok(match operation {
        Operation::SessionCreate => Arc::new(Creating::new(Layers::new(store, clock)?)),
        Operation::SessionRead | Operation::SessionReadCached => {
            let layers = Layers::new(store, clock)?;
            let mut held = Vec::new();
            for number in 0..session::SESSIONS {
                held.push(layers.session(number).await?);
            }
            let (ids, tokens) = held.into_iter().unzip();
            match operation {
                Operation::SessionRead => Arc::new(Reading { layers, ids }),
                _ => Arc::new(Identifying::new(layers, tokens, tasks)),
            }
        }
        Operation::StatePut | Operation::StatePatch | Operation::StateRead => {
            let layers = Layers::new(store, clock)?;
            let documents = Documents { layers, caller: caller(entry::USER)?, operation };
            documents.fill(tasks).await?;
            Arc::new(documents)
        }
        Operation::Publish => {
            let layers = Layers::new(store, clock)?;
            let (publications, caller) = (layers.publications(), caller(entry::USER)?);
            Arc::new(Publishing { publications, caller })
        }
        Operation::LimitCharge => limits::prepare(store, clock, tasks).await?,
    })
}

pub(crate) fn tenant() -> Result<TenantId, String> {
    TenantId::new("acme").map_err(told)
}

pub(crate) fn principal(name: &str) -> Result<Principal, String> {
    Ok(Principal { kind: PrincipalKind::User, id: PrincipalId::new(name).map_err(told)? })
}

fn caller(name: &str) -> Result<Caller, String> {
    Ok(Caller::new(tenant()?, principal(name)?, CredentialKind::Jwt))
}

/// What a node makes over its store.
struct Layers {
    store: SharedStore,
    clock: SharedClock,
    genesis: Genesis,
    sessions: Arc<Sessions>,
    states: Arc<States>,
    identity: Arc<Identity>,
}

impl Layers {
    fn new(store: SharedStore, clock: SharedClock) -> Result<Self, String> {
        let genesis = Genesis::new(store.clone(), clock.clone());
        let revocations = Revocations::new(store.clone());
        tokio::spawn(revocations.clone().run());
        let sessions = Arc::new(Sessions::new(
            store.clone(),
            clock.clone(),
            traffic_cop::session::Config::default(),
            revocations.clone(),
        ));
        let states = Arc::new(States::new(
            store.clone(),
            clock.clone(),
            traffic_cop::state::Config::default(),
            genesis.clone(),
        ));
        let identity = Arc::new(Identity::new(
            &traffic_cop::identity::Config::default(),
            Issuers::default(),
            ApiKeys::new(store.clone(), clock.clone(), revocations.clone()),
            sessions.clone(),
            revocations,
            clock.clone(),
        ));
        Ok(Self { store, clock, genesis, sessions, states, identity })
    }

    /// A session of its own user, and its token.
    async fn session(&self, number: usize) -> Result<(SessionId, String), String> {
        let new = NewSession { metadata: Some(session::metadata()), ..NewSession::default() };
        let principal = principal(&session::user(number))?;
        let made = self.sessions.create(&tenant()?, &principal, new).await;
        made.map(|(session, token)| (session.id, token)).map_err(told)
    }

    fn publications(&self) -> Publications {
        let mailboxes = post_office::Mailboxes::new(
            self.store.clone(),
            self.clock.clone(),
            self.genesis.clone(),
            post_office::Config::default(),
        );
        let parts = realtime::Parts {
            mailboxes: Arc::new(mailboxes),
            identity: self.identity.clone(),
            sessions: self.sessions.clone(),
            states: self.states.clone(),
            limits: Arc::new(Limits::new(Vec::new(), Shared::in_memory(self.clock.clone()))),
            analytics: Arc::new(Analytics::default()),
            store: self.store.clone(),
            reach: realtime::Reach::Stored,
            node: "bench".into(),
            genesis: self.genesis.clone(),
            clock: self.clock.clone(),
            control: tokio::runtime::Handle::current(),
        };
        Realtime::new(realtime::Config::default(), parts).publications()
    }
}

struct Creating {
    layers: Layers,
    next: AtomicUsize,
}

impl Creating {
    fn new(layers: Layers) -> Self {
        Self { layers, next: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl Work for Creating {
    async fn once(&self, _: usize, _: u64) -> Result<(), String> {
        self.layers.session(self.next.fetch_add(1, Ordering::Relaxed)).await.map(drop)
    }
}

/// Reads a session by its id, from the store.
struct Reading {
    layers: Layers,
    ids: Vec<SessionId>,
}

#[async_trait]
impl Work for Reading {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        let id = self.ids[(task + turn as usize) % self.ids.len()];
        let found = self.layers.sessions.get(&tenant()?, id).await.map_err(told)?;
        found.map(drop).ok_or_else(|| "a session is gone".into())
    }
}

/// Reads the session behind a token, as a core does for each request: what it has read it
/// trusts for 30 seconds, unless it is revoked.
struct Identifying {
    layers: Layers,
    tokens: Vec<String>,
    /// One for each task, which stands for a core.
    callers: Vec<Mutex<CallerCache>>,
}

impl Identifying {
    fn new(layers: Layers, tokens: Vec<String>, tasks: usize) -> Self {
        let callers = (0..tasks).map(|_| Mutex::new(CallerCache::new(CALLERS))).collect();
        Self { layers, tokens, callers }
    }
}

#[async_trait]
impl Work for Identifying {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        let token = &self.tokens[(task + turn as usize) % self.tokens.len()];
        let identity = &self.layers.identity;
        let callers = || self.callers[task].lock().unwrap_or_else(PoisonError::into_inner);
        let known = callers().get(token, identity.epoch(), self.layers.clock.now());
        if known.is_none() {
            let identified = identity.clone().identify(token.clone()).await.map_err(told)?;
            callers().insert(token.clone(), &identified);
        }
        Ok(())
    }
}

struct Documents {
    layers: Layers,
    caller: Caller,
    operation: Operation,
}

impl Documents {
    async fn fill(&self, tasks: usize) -> Result<(), String> {
        for task in 0..tasks {
            for number in 0..entry::DOCUMENTS {
                let first = Change::Put(entry::first_value());
                self.change(&entry::document(task, number), first).await?;
            }
        }
        Ok(())
    }

    async fn change(&self, document: &str, change: Change) -> Result<(), String> {
        let document = DocumentId::new("pillar", document).map_err(told)?;
        let states = &self.layers.states;
        let applied = states.apply(&self.caller, &document, entry::KEY, change, None).await;
        applied.map(drop).map_err(told)
    }
}

#[async_trait]
impl Work for Documents {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        let name = entry::document(task, turn);
        match self.operation {
            Operation::StatePut => self.change(&name, Change::Put(entry::first_value())).await,
            Operation::StatePatch => self.change(&name, Change::Patch(entry::patch(turn))).await,
            _ => {
                let document = DocumentId::new("pillar", &name).map_err(told)?;
                let read = self.layers.states.snapshot(&self.caller, &document).await;
                match read.map_err(told)?.entries.len() {
                    1 => Ok(()),
                    other => Err(format!("{other} entries")),
                }
            }
        }
    }
}

struct Publishing {
    publications: Publications,
    caller: Caller,
}

#[async_trait]
impl Work for Publishing {
    async fn once(&self, task: usize, turn: u64) -> Result<(), String> {
        let data = serde_json::value::to_raw_value(&entry::first_value()).map_err(told)?;
        let channel = entry::document(task, turn);
        self.publications
            .publish(&self.caller, &channel, data, BTreeMap::new())
            .await
            .map(drop)
            .map_err(told)
    }
}
