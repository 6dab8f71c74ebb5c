//! Sessions: what outlives a connection.
//!
//! A session belongs to a principal of a tenant. All sessions of a principal lie in one
//! partition, so that the limit of them is exact, and a session's id says which partition
//! that is. A session's token, `cst_{tenant}.{session}.{secret}`, is a credential; the store
//! holds its hash only. A durable session also keeps what its connections follow ([`Kept`]).

mod kept;
mod record;

pub use kept::{Ground, Keeping, Kept, KeptPosition, KeptSubscription};
pub use record::{NewSession, Session, SessionKind, Status, Update};

use crate::{
    identity::{Hold, Revocations, refused, revocations::Basis},
    secret,
    session::record::SessionRecord,
    storage,
};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::Deserialize;
use std::{str::FromStr, time::Duration};
use store::{Check, Commit, Key, Kind, Partition, SharedStore, Write};
use types::{Caller, CredentialKind, Principal, SessionId, TenantId, Timestamp};

/// How a session token begins.
pub const TOKEN_PREFIX: &str = "cst_";
const KIND: Kind = Kind::new("session");
/// How often a change is tried again when others change the same principal's sessions.
const ATTEMPTS: usize = 32;

/// Bounds of sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a session lives without use, unless its creator says otherwise.
    #[serde(with = "types::duration")]
    pub ttl: Duration,
    /// How long a session lives at most, however much it is used.
    #[serde(with = "types::duration")]
    pub ttl_max: Duration,
    /// Sessions that one principal may have at a time, 1 to 1000.
    pub per_user_max: usize,
    /// Bytes of a session's metadata, as JSON; at most 65536.
    pub metadata_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            ttl_max: Duration::from_secs(30 * 24 * 3600),
            per_user_max: 16,
            metadata_bytes_max: 16 * 1024,
        }
    }
}

/// The sessions of all tenants.
pub struct Sessions {
    store: SharedStore,
    clock: SharedClock,
    config: Config,
    revocations: Revocations,
}

impl Sessions {
    /// Sessions kept in `store`.
    #[must_use]
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        config: Config,
        revocations: Revocations,
    ) -> Self {
        Self { store, clock, config, revocations }
    }

    /// Makes a session for `principal` and its token, which is shown this once.
    ///
    /// # Errors
    /// `session_limit` if the principal has as many as it may, `bad_request`, or those of the
    /// store.
    pub async fn create(
        &self,
        tenant: &TenantId,
        principal: &Principal,
        new: NewSession,
    ) -> Result<(Session, String), Problem> {
        let metadata = self.checked_metadata(new.metadata.unwrap_or_default())?;
        let ttl = new.ttl.unwrap_or(self.config.ttl).min(self.config.ttl_max);
        if ttl < Duration::from_secs(1) {
            return Err(Problem::new(Code::BadRequest, "`ttl` must be at least 1s"));
        }
        let shelf = record::shelf(principal);
        let id = SessionId::new(shelf, clock::random(&*self.clock)).marked(new.durable);
        let secret = secret::random(&*self.clock);
        let now = self.clock.now();
        let ttl_max = new.ttl_max.unwrap_or(self.config.ttl_max).min(self.config.ttl_max).max(ttl);
        let record = SessionRecord {
            id,
            principal: principal.id.clone(),
            principal_kind: principal.kind,
            kind: new.kind,
            status: Status::Active,
            created: now,
            last_used: now,
            ttl_ms: millis(ttl),
            sliding: new.sliding,
            durable: new.durable,
            ends: now.plus(ttl_max),
            pillars: new.pillars,
            metadata,
            implicit: new.implicit,
            token_hash: secret::hash(&secret),
        };
        let partition = partition(tenant, shelf)?;
        for _ in 0..ATTEMPTS {
            let (position, held) = self.of_principal(&partition, principal).await?;
            if new.implicit
                && let Some(known) = held.iter().find(|held| held.implicit && held.kind == new.kind)
            {
                return Ok((known.shown(tenant), String::new()));
            }
            if held.len() >= self.config.per_user_max {
                let most = self.config.per_user_max;
                let detail = format!("there are {most} sessions already, which is the limit");
                return Err(Problem::new(Code::SessionLimit, detail));
            }
            let commit = Commit::new(partition.clone())
                .check(Check::Position(position))
                .write(put(&record, now));
            match self.store.commit(commit).await {
                Ok(_) => {
                    let token = format!("{TOKEN_PREFIX}{tenant}.{id}.{}", secret);
                    return Ok((record.shown(tenant), token));
                }
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "too many sessions are being made at once"))
    }

    /// A session of `tenant`; `None` if there is none, or none any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, tenant: &TenantId, id: SessionId) -> Result<Option<Session>, Problem> {
        Ok(self.read(tenant, id).await?.map(|(record, _)| record.shown(tenant)))
    }

    /// The sessions of a principal, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        tenant: &TenantId,
        principal: &Principal,
    ) -> Result<Vec<Session>, Problem> {
        let partition = partition(tenant, record::shelf(principal))?;
        let (_, mut held) = self.of_principal(&partition, principal).await?;
        held.sort_by_key(|record| (record.created, record.id));
        Ok(held.iter().map(|record| record.shown(tenant)).collect())
    }

    /// Changes metadata, status or pillars. Suspended sessions refuse their token and close their
    /// connections until they are made active again. Other pillars hold at once on this node, and
    /// on others as fast as the store tells of them: for the token, and for what connections follow.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `conflict`, or those of the store.
    pub async fn update(
        &self,
        tenant: &TenantId,
        id: SessionId,
        update: Update,
    ) -> Result<Session, Problem> {
        let metadata =
            update.metadata.map(|metadata| self.checked_metadata(metadata)).transpose()?;
        let changed = self
            .change(tenant, id, |record, _| {
                if let Some(metadata) = &metadata {
                    record.metadata = metadata.clone();
                }
                if let Some(status) = update.status {
                    record.status = status;
                }
                if let Some(pillars) = &update.pillars {
                    record.pillars = pillars.clone();
                }
            })
            .await?;
        if update.pillars.is_some() {
            let looked = self.revocations.look_at(&partition(tenant, id.shelf())?, &key(id)).await;
            if let Err(error) = looked {
                // It is changed. That it is, is seen as it is seen of other nodes.
                tracing::warn!(%error, "the pillars of a session are looked at later");
            }
        }
        if changed.status == Status::Suspended {
            self.revocations.revoke(tenant, Some(id));
        }
        Ok(changed)
    }

    /// Counts as a use: a sliding session lives on for its whole `ttl` from now.
    ///
    /// # Errors
    /// `not_found`, or those of the store.
    pub async fn refresh(&self, tenant: &TenantId, id: SessionId) -> Result<Session, Problem> {
        self.change(tenant, id, |record, now| record.last_used = now).await
    }

    /// Ends a session. Its token is refused, its connections close, and what it kept is
    /// forgotten.
    ///
    /// # Errors
    /// `not_found`, or those of the store.
    pub async fn destroy(&self, tenant: &TenantId, id: SessionId) -> Result<(), Problem> {
        let (record, _) = self.read(tenant, id).await?.ok_or_else(unknown)?;
        let commit =
            Commit::new(partition(tenant, id.shelf())?).write(Write::Delete { key: key(id) });
        self.store.commit(commit).await.map_err(storage::problem)?;
        self.revocations.revoke(tenant, Some(id));
        if record.durable
            && let Err(problem) = self.forget_kept(tenant, id).await
        {
            // Nobody reads it any more, and it expires.
            tracing::warn!(problem.detail, "what an ended session kept stays until it expires");
        }
        Ok(())
    }

    /// The caller that a session token proves. Counts as a use.
    pub(crate) async fn identify(&self, token: &str) -> Result<(Caller, Hold), Problem> {
        let unknown = || refused("the session token is not known");
        let mut parts = token.strip_prefix(TOKEN_PREFIX).ok_or_else(unknown)?.splitn(3, '.');
        let (Some(tenant), Some(id), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let tenant = TenantId::new(tenant).map_err(|_| unknown())?;
        let id = SessionId::from_str(id).map_err(|_| unknown())?;
        let hold = self.revocations.hold(basis(&tenant, id)?);
        let (record, _) = self.read(&tenant, id).await?.ok_or_else(unknown)?;
        if !secret::matches(secret, &record.token_hash) {
            return Err(unknown());
        }
        if record.status == Status::Suspended {
            return Err(Problem::new(Code::Forbidden, "the session is suspended"));
        }
        let now = self.clock.now();
        let record = if record.wants_touch(now) {
            match self.refresh(&tenant, id).await {
                Ok(_) => SessionRecord { last_used: now, ..record },
                // The session stands; that it lives on for longer is what cannot be written.
                Err(problem) if is_about_the_store(problem.code) => record,
                Err(problem) => return Err(problem),
            }
        } else {
            record
        };
        self.revocations.note(&hold, &record.pillars);
        let principal = Principal { kind: record.principal_kind, id: record.principal.clone() };
        let caller = Caller {
            session: Some(id),
            pillars: record.pillars.clone(),
            expires: Some(record.expires()),
            ..Caller::new(tenant, principal, CredentialKind::SessionToken)
        };
        Ok((caller, hold))
    }

    /// Looks out for the end of a session by whichever node, and for other pillars, for as long as
    /// this is held: then its connections close, or look at them anew.
    ///
    /// # Errors
    /// None for the id of a session.
    pub fn hold(&self, tenant: &TenantId, id: SessionId) -> Result<Hold, Problem> {
        Ok(self.revocations.hold_and_look(basis(tenant, id)?))
    }

    /// Reads the pillars of a session that is held.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn learn(
        &self,
        tenant: &TenantId,
        id: SessionId,
        hold: &Hold,
    ) -> Result<(), Problem> {
        if let Some((record, _)) = self.read(tenant, id).await? {
            self.revocations.note(hold, &record.pillars);
        }
        Ok(())
    }

    /// Takes over the pillars of a session that is held and was just read.
    pub fn note(&self, hold: &Hold, session: &Session) {
        self.revocations.note(hold, &session.pillars);
    }

    fn checked_metadata(
        &self,
        metadata: serde_json::Map<String, serde_json::Value>,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Problem> {
        let actual = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
        let limit = self.config.metadata_bytes_max;
        if actual > limit {
            let detail = format!("the metadata has {actual} bytes; at most {limit} are allowed");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        Ok(metadata)
    }

    async fn read(
        &self,
        tenant: &TenantId,
        id: SessionId,
    ) -> Result<Option<(SessionRecord, u64)>, Problem> {
        let partition = partition(tenant, id.shelf())?;
        let Some(stored) = self.store.get(&partition, &key(id)).await.map_err(storage::problem)?
        else {
            return Ok(None);
        };
        let record: SessionRecord = storage::decode(&stored.value)?;
        let alive = record.expires() > self.clock.now();
        Ok(alive.then_some((record, stored.revision)))
    }

    async fn change(
        &self,
        tenant: &TenantId,
        id: SessionId,
        change: impl Fn(&mut SessionRecord, Timestamp),
    ) -> Result<Session, Problem> {
        for _ in 0..ATTEMPTS {
            let (mut record, revision) = self.read(tenant, id).await?.ok_or_else(unknown)?;
            let now = self.clock.now();
            change(&mut record, now);
            let commit = Commit::new(partition(tenant, id.shelf())?)
                .check(Check::Revision { key: key(id), revision })
                .write(put(&record, now));
            match self.store.commit(commit).await {
                Ok(_) => return Ok(record.shown(tenant)),
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Conflict, "the session is changed by too many at once"))
    }

    /// The living sessions of a principal and the position at which they were read.
    async fn of_principal(
        &self,
        partition: &Partition,
        principal: &Principal,
    ) -> Result<(store::Position, Vec<SessionRecord>), Problem> {
        let now = self.clock.now();
        let mut held = Vec::new();
        let mut position = None;
        let mut after: Option<Key> = None;
        loop {
            let page = self
                .store
                .scan(partition, b"", after.as_ref(), 1_000)
                .await
                .map_err(storage::problem)?;
            // The first page's: what changes between pages then fails the check.
            let position = *position.get_or_insert(page.position);
            for (_, stored) in &page.records {
                let record: SessionRecord = storage::decode(&stored.value)?;
                let theirs =
                    record.principal == principal.id && record.principal_kind == principal.kind;
                if theirs && record.expires() > now {
                    held.push(record);
                }
            }
            match page.records.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                Some(_) | None => return Ok((position, held)),
            }
        }
    }
}

fn is_about_the_store(code: Code) -> bool {
    matches!(code, Code::StoreUnavailable | Code::StoreReadOnly | Code::StoreFull)
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such session")
}

fn put(record: &SessionRecord, now: Timestamp) -> Write {
    let expires = Some(record.expires().since(now));
    Write::Put { key: key(record.id), value: storage::encode(record), expires }
}

fn partition(tenant: &TenantId, shelf: u64) -> Result<Partition, Problem> {
    Partition::new(tenant.clone(), KIND, &format!("{shelf:016x}")).map_err(storage::problem)
}

fn basis(tenant: &TenantId, id: SessionId) -> Result<Basis, Problem> {
    let partition = partition(tenant, id.shelf())?;
    Ok(Basis {
        partition,
        key: key(id),
        session: Some(id),
        stands: record::stands,
        pillars: Default::default(),
    })
}

fn key(id: SessionId) -> Key {
    Key::new(id.to_string()).expect("an id is short")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
