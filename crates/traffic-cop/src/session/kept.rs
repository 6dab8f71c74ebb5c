//! What a durable session keeps of its connections' subscriptions: which channels, by what
//! permission, and up to which position the client has told that it has them.
//!
//! All that the sessions of a principal keep lies in one partition, beside the one of the sessions
//! themselves: whoever looks out for the end of a session is not woken by positions. There is a
//! record for each subscription, and one of the session: who writes. The connection that came
//! last does, and what another one still writes fails its check: positions never go back.

use crate::{
    session::{Sessions, unknown},
    storage::{self, Stored},
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use store::{Check, Commit, Incarnation, Key, Kind, Partition, Write};
use types::{Principal, SessionId, TenantId, Timestamp};

const KIND: Kind = Kind::new("kept");
/// Subscriptions that are written or deleted by one commit; see [`store::Commit`].
const WRITES_MAX: usize = 100;
const PAGE: usize = 1_000;

/// Why a connection was allowed to follow a channel.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Ground {
    /// The rules of its namespace, or a capability of the credential.
    #[default]
    Namespace,
    /// A subscription token.
    Token,
    /// A service's order.
    Order,
    /// The credential names it, or it is the principal's own.
    Credential,
}

/// What a durable session keeps of one subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Kept {
    /// By what permission.
    pub ground: Ground,
    /// When that ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Where the client is; `None` in a channel that keeps no history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<KeptPosition>,
    /// What it is to: `type` of the client protocol; 0 for publications.
    #[serde(default)]
    pub kind: i32,
    /// Whether the client wants to be told who comes and goes.
    #[serde(default)]
    pub join_leave: bool,
    /// Which publications it wants, as the client wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<serde_json::Value>,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub since: Timestamp,
}

impl Stored for Kept {
    const VERSION: u8 = 1;
}

/// Up to where a client has the publications of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeptPosition {
    /// Which life of the channel.
    pub epoch: String,
    /// The last publication.
    pub offset: u64,
}

/// A kept subscription, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct KeptSubscription {
    /// The channel.
    pub channel: String,
    /// The rest.
    #[serde(flatten)]
    pub kept: Kept,
}

/// Who writes what a session keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    connection: String,
}

impl Stored for Holder {
    const VERSION: u8 = 1;
}

/// The right to write what a session keeps, until another connection takes it.
#[derive(Debug, Clone)]
pub struct Keeping {
    partition: Partition,
    session: SessionId,
    incarnation: Incarnation,
    /// The commit by which it was taken.
    revision: u64,
    /// When the session ends in any case.
    ends: Timestamp,
}

impl Sessions {
    /// Takes over what the session `id` keeps, for `connection`, and tells it; `None` if the session
    /// is not durable, or not of `principal`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn take_kept(
        &self,
        tenant: &TenantId,
        principal: &Principal,
        id: SessionId,
        connection: &str,
    ) -> Result<Option<(Keeping, BTreeMap<String, Kept>)>, Problem> {
        let Some((record, _)) = self.read(tenant, id).await? else { return Ok(None) };
        let theirs = record.is_of(principal) || record.user() == *principal;
        if !record.durable || !theirs {
            return Ok(None);
        }
        let partition = partition(tenant, id)?;
        let holder = storage::encode(&Holder { connection: connection.to_owned() });
        let expires = Some(record.ends.since(self.clock.now()));
        let write = Write::Put { key: holder_key(id), value: holder, expires };
        let commit = Commit::new(partition.clone()).write(write);
        let taken = self.store.commit(commit).await.map_err(storage::problem)?;
        // Whoever ends the session meanwhile has either seen the record above, or is seen here.
        if self.read(tenant, id).await?.is_none() {
            self.forget_kept(tenant, id).await?;
            return Err(unknown());
        }
        let keeping = Keeping {
            partition,
            session: id,
            incarnation: taken.position.incarnation,
            revision: taken.position.revision,
            ends: record.ends,
        };
        Ok(Some((keeping, self.kept_of(tenant, id).await?)))
    }

    /// Writes what has changed of a session's subscriptions; `None` for one that is no more. False
    /// if another connection writes now, or the session has ended: then nothing is written.
    ///
    /// # Errors
    /// Those of the store. What was written then is written again by the same call.
    pub async fn keep(
        &self,
        keeping: &Keeping,
        changed: Vec<(String, Option<Kept>)>,
    ) -> Result<bool, Problem> {
        let expires = keeping.ends.since(self.clock.now());
        for some in changed.chunks(WRITES_MAX) {
            let mut commit = Commit::new(keeping.partition.clone())
                .check(Check::Incarnation(keeping.incarnation))
                .check(Check::Revision {
                    key: holder_key(keeping.session),
                    revision: keeping.revision,
                });
            for (channel, kept) in some {
                commit = commit.write(write(keeping.session, channel, kept.as_ref(), expires)?);
            }
            match self.store.commit(commit).await {
                Ok(_) => {}
                Err(store::Error::Conflict { .. }) => return Ok(false),
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Ok(true)
    }

    /// What a durable session keeps, by channel.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn kept(
        &self,
        tenant: &TenantId,
        id: SessionId,
    ) -> Result<Vec<KeptSubscription>, Problem> {
        let kept = self.kept_of(tenant, id).await?;
        Ok(kept.into_iter().map(|(channel, kept)| KeptSubscription { channel, kept }).collect())
    }

    async fn kept_of(
        &self,
        tenant: &TenantId,
        id: SessionId,
    ) -> Result<BTreeMap<String, Kept>, Problem> {
        let (partition, prefix) = (partition(tenant, id)?, format!("{id}/"));
        let (mut kept, mut after) = (BTreeMap::new(), None);
        loop {
            let page = self.store.scan(&partition, prefix.as_bytes(), after.as_ref(), PAGE).await;
            let page = page.map_err(storage::problem)?;
            for (key, record) in &page.records {
                let name = key.as_bytes().get(prefix.len()..).unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                kept.insert(name, storage::decode(&record.value)?);
            }
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                return Ok(kept);
            }
        }
    }

    /// Forgets what a session keeps. Who writes goes first, so that nothing is written after it.
    pub(super) async fn forget_kept(
        &self,
        tenant: &TenantId,
        id: SessionId,
    ) -> Result<(), Problem> {
        let partition = partition(tenant, id)?;
        let holder = Write::Delete { key: holder_key(id) };
        let commit = Commit::new(partition.clone()).write(holder);
        self.store.commit(commit).await.map_err(storage::problem)?;
        let names: Vec<String> = self.kept_of(tenant, id).await?.into_keys().collect();
        for some in names.chunks(WRITES_MAX) {
            let mut commit = Commit::new(partition.clone());
            for channel in some {
                commit = commit.write(write(id, channel, None, Duration::ZERO)?);
            }
            self.store.commit(commit).await.map_err(storage::problem)?;
        }
        Ok(())
    }
}

fn write(
    session: SessionId,
    channel: &str,
    kept: Option<&Kept>,
    expires: Duration,
) -> Result<Write, Problem> {
    let key = Key::new(format!("{session}/{channel}"));
    let key = key.map_err(|_| Problem::new(Code::BadRequest, "the channel's name is too long"))?;
    Ok(match kept {
        Some(kept) => Write::Put { key, value: storage::encode(kept), expires: Some(expires) },
        None => Write::Delete { key },
    })
}

fn partition(tenant: &TenantId, id: SessionId) -> Result<Partition, Problem> {
    Partition::new(tenant.clone(), KIND, &format!("{:016x}", id.shelf())).map_err(storage::problem)
}

fn holder_key(id: SessionId) -> Key {
    Key::new(id.to_string()).expect("an id is short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Revocations, session::NewSession};
    use clock::SystemClock;
    use std::sync::Arc;
    use store::SharedStore;
    use store_memory::MemoryStore;
    use types::{PrincipalId, PrincipalKind};

    struct World {
        sessions: Sessions,
        tenant: TenantId,
        ann: Principal,
    }

    fn world() -> World {
        let clock = SystemClock::shared();
        let store: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
        let revocations = Revocations::new(store.clone());
        let sessions = Sessions::new(store, clock, super::super::Config::default(), revocations);
        let ann = Principal { kind: PrincipalKind::User, id: PrincipalId::new("ann").unwrap() };
        World { sessions, tenant: TenantId::new("acme").unwrap(), ann }
    }

    impl World {
        async fn session(&self, durable: bool) -> SessionId {
            let new = NewSession { durable, ..NewSession::default() };
            let made = self.sessions.create(&self.tenant, &self.ann, new).await.unwrap();
            assert_eq!((made.0.durable, made.0.id.may_be_durable()), (durable, durable));
            made.0.id
        }

        async fn take(
            &self,
            id: SessionId,
            connection: &str,
        ) -> Option<(Keeping, BTreeMap<String, Kept>)> {
            self.sessions.take_kept(&self.tenant, &self.ann, id, connection).await.unwrap()
        }

        async fn names(&self, id: SessionId) -> Vec<String> {
            let kept = self.sessions.kept(&self.tenant, id).await.unwrap();
            kept.into_iter().map(|kept| kept.channel).collect()
        }
    }

    fn at(offset: u64) -> Kept {
        let position = Some(KeptPosition { epoch: "e".into(), offset });
        Kept { position, ..Kept::default() }
    }

    #[tokio::test]
    async fn the_connection_that_came_last_writes() {
        let world = world();
        let id = world.session(true).await;
        let (first, kept) = world.take(id, "con_1").await.unwrap();
        assert!(kept.is_empty());
        let many = (0..250).map(|n| (format!("room:{n:03}"), Some(at(n)))).collect();
        assert!(world.sessions.keep(&first, many).await.unwrap());
        let (second, kept) = world.take(id, "con_2").await.unwrap();
        assert_eq!((kept.len(), &kept["room:007"]), (250, &at(7)));
        let later = || vec![("room:007".to_owned(), Some(at(99)))];
        assert!(!world.sessions.keep(&first, later()).await.unwrap());
        let gone = vec![("room:007".to_owned(), None), ("room:008".to_owned(), Some(at(9)))];
        assert!(world.sessions.keep(&second, gone).await.unwrap());
        let (_, kept) = world.take(id, "con_3").await.unwrap();
        assert_eq!((kept.len(), &kept["room:008"]), (249, &at(9)));
    }

    #[tokio::test]
    async fn what_an_ended_session_kept_is_gone_and_stays_so() {
        let world = world();
        let (id, other) = (world.session(true).await, world.session(true).await);
        let (keeping, _) = world.take(id, "con_1").await.unwrap();
        let (others, _) = world.take(other, "con_2").await.unwrap();
        let room = || vec![("room".to_owned(), Some(at(1)))];
        assert!(world.sessions.keep(&keeping, room()).await.unwrap());
        assert!(world.sessions.keep(&others, room()).await.unwrap());
        let end = crate::session::End { why: "test", by: None };
        world.sessions.destroy(&world.tenant, id, end).await.unwrap();
        assert!(!world.sessions.keep(&keeping, room()).await.unwrap());
        assert_eq!(world.names(id).await, [] as [&str; 0]);
        assert_eq!(world.names(other).await, ["room"]);
        assert!(world.take(id, "con_3").await.is_none());
    }

    #[tokio::test]
    async fn neither_an_ordinary_session_nor_somebody_elses_keeps_anything() {
        let world = world();
        let ordinary = world.session(false).await;
        assert!(world.take(ordinary, "con_1").await.is_none());
        let durable = world.session(true).await;
        let bob = Principal { id: PrincipalId::new("bob").unwrap(), ..world.ann.clone() };
        let taken = world.sessions.take_kept(&world.tenant, &bob, durable, "con_1").await;
        assert!(taken.unwrap().is_none());
    }
}
