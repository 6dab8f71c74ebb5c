//! Principals that are kept out: whatever credential they bring is refused, and their connections
//! close, on every node, until the block ends or is lifted.
//!
//! The blocks of a tenant lie in one partition. A node reads it when the tenant's first credential
//! is checked, and follows it from then on ([`Revocations::run`]), so that neither a check nor a
//! warm caller asks the store. A new block counts as a revocation: what was cached is checked again.

use crate::{
    identity::Revocations,
    storage::{self, Stored},
};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Commit, Key, Kind, Partition, Position, SharedStore, Write};
use types::{Caller, Principal, PrincipalId, PrincipalKind, TenantId, Timestamp};

const KIND: Kind = Kind::new("blocks");
/// Blocks of a tenant at a time: every node remembers them.
const BLOCKS_MAX: usize = 10_000;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 256;
const PAGE: usize = 1_000;

/// What is to be blocked, and why.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewBlock {
    /// Why, in at most 256 bytes: shown to services, and not to whom it concerns.
    pub reason: String,
    /// For how long; until it is lifted, unless given. In text: `30m`.
    #[serde(deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    pub duration: Option<Duration>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Block {
    /// Who is blocked.
    pub user: PrincipalId,
    /// What that is.
    pub kind: PrincipalKind,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: PrincipalId,
    /// Since when, in milliseconds since 1970 UTC.
    pub since: Timestamp,
    /// When it ends by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Stored for Block {
    const VERSION: u8 = 1;
}

/// The blocks of a tenant as a node knows them, by principal.
pub(super) type Known = Arc<BTreeMap<String, Block>>;

impl Block {
    fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn principal(&self) -> Principal {
        Principal { kind: self.kind, id: self.user.clone() }
    }

    /// What the blocked principal is told.
    fn refusal(&self) -> Problem {
        let problem =
            Problem::new(Code::Forbidden, "the caller is blocked").member("blocked", true);
        match self.until {
            Some(until) => problem.member("until", until.0),
            None => problem,
        }
    }
}

/// Blocks principals, for services.
#[derive(Clone)]
pub struct Blocks {
    store: SharedStore,
    clock: SharedClock,
    revocations: Revocations,
}

impl Blocks {
    /// Blocks kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock, revocations: Revocations) -> Self {
        Self { store, clock, revocations }
    }

    /// Blocks a principal, in place of an earlier block. When this returns, it is durable, and this
    /// node lets them in no more; other nodes follow as fast as the store tells of it.
    ///
    /// # Errors
    /// `bad_request`, `overloaded` if there are 10,000 already, or those of the store.
    pub async fn block(
        &self,
        by: &Caller,
        principal: Principal,
        new: NewBlock,
    ) -> Result<Block, Problem> {
        if new.reason.len() > REASON_BYTES_MAX {
            let detail = format!("a reason has at most {REASON_BYTES_MAX} bytes");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        if new.duration.is_some_and(|duration| duration < Duration::from_secs(1)) {
            return Err(Problem::new(Code::BadRequest, "`duration` must be at least 1s"));
        }
        let partition = partition(&by.tenant)?;
        let (_, known) = read(&self.store, &partition).await?;
        if known.len() >= BLOCKS_MAX && !known.contains_key(&name(&principal)) {
            let detail = format!("{BLOCKS_MAX} are blocked already, which is the limit");
            return Err(Problem::new(Code::Overloaded, detail));
        }
        let now = self.clock.now();
        let block = Block {
            user: principal.id.clone(),
            kind: principal.kind,
            reason: new.reason,
            by: by.principal.id.clone(),
            since: now,
            until: new.duration.map(|duration| now.plus(duration)),
        };
        let value = storage::encode(&block);
        let write = Write::Put { key: key(&principal)?, value, expires: new.duration };
        let commit = Commit::new(partition).write(write);
        self.store.commit(commit).await.map_err(storage::problem)?;
        tracing::info!(tenant = %by.tenant, user = %block.user, kind = %block.kind,
            by = %block.by, reason = block.reason, "a principal is blocked");
        self.revocations.look_at_blocks(&by.tenant).await?;
        Ok(block)
    }

    /// Lifts a block. This node lets the principal in when this returns.
    ///
    /// # Errors
    /// `not_found` if there is none, or those of the store.
    pub async fn lift(&self, tenant: &TenantId, principal: &Principal) -> Result<(), Problem> {
        self.get(tenant, principal).await?;
        let write = Write::Delete { key: key(principal)? };
        let commit = Commit::new(partition(tenant)?).write(write);
        self.store.commit(commit).await.map_err(storage::problem)?;
        tracing::info!(%tenant, user = %principal.id, kind = %principal.kind, "a block is lifted");
        self.revocations.look_at_blocks(tenant).await
    }

    /// The block of a principal.
    ///
    /// # Errors
    /// `not_found` if there is none, or those of the store.
    pub async fn get(&self, tenant: &TenantId, principal: &Principal) -> Result<Block, Problem> {
        let held = self.store.get(&partition(tenant)?, &key(principal)?).await;
        match held.map_err(storage::problem)? {
            Some(record) => storage::decode(&record.value),
            None => Err(Problem::new(Code::NotFound, "the user is not blocked")),
        }
    }

    /// All blocks of a tenant.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, tenant: &TenantId) -> Result<Vec<Block>, Problem> {
        let (_, known) = read(&self.store, &partition(tenant)?).await?;
        Ok(known.values().cloned().collect())
    }
}

impl Revocations {
    /// Refuses a caller who is blocked. Asks the store only about the first one of a tenant.
    ///
    /// # Errors
    /// `forbidden`, with the members `blocked` and `until`; or those of the store.
    pub(super) async fn refuse_blocked(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), Problem> {
        if self.known_blocks(&caller.tenant).is_none() {
            self.look_at_blocks(&caller.tenant).await?;
        }
        self.refuse_known_blocked(caller, now)
    }

    /// As [`Self::refuse_blocked`], by what is known already.
    pub(super) fn refuse_known_blocked(
        &self,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let known = self.known_blocks(&caller.tenant).filter(|known| !known.is_empty());
        let block = known.as_ref().and_then(|known| known.get(&name(&caller.principal)));
        match block.filter(|block| block.holds(now)) {
            Some(block) => Err(block.refusal()),
            None => Ok(()),
        }
    }

    /// Learns who of a tenant is blocked, and goes on following it.
    async fn look_at_blocks(&self, tenant: &TenantId) -> Result<(), Problem> {
        let partition = partition(tenant)?;
        let position = self.learn_blocks(&partition).await?;
        self.follow(partition, position);
        Ok(())
    }

    /// Whether a partition that has changed holds blocks.
    pub(super) fn is_of_blocks(partition: &Partition) -> bool {
        *partition.kind() == KIND
    }

    /// Reads the blocks of a tenant, and ends what the new ones do not allow.
    pub(super) async fn learn_blocks(&self, partition: &Partition) -> Result<Position, Problem> {
        // One after the other: what was read first is not to replace what was read later.
        let _turn = self.blocks_turn().lock().await;
        let (position, read) = read(self.store(), partition).await?;
        let tenant = partition.tenant();
        let known = self.known_blocks(tenant).unwrap_or_default();
        let is_new = |block: &&Block| known.get(&name(&block.principal())) != Some(*block);
        let new: Vec<Principal> = read.values().filter(is_new).map(Block::principal).collect();
        self.know_blocks(tenant, Arc::new(read));
        for principal in new {
            self.revoke_all_of(tenant, &principal);
        }
        Ok(position)
    }
}

async fn read(
    store: &SharedStore,
    partition: &Partition,
) -> Result<(Position, BTreeMap<String, Block>), Problem> {
    let (mut found, mut begun, mut after) = (BTreeMap::new(), None, None);
    loop {
        let page = store.scan(partition, b"", after.as_ref(), PAGE).await;
        let page = page.map_err(storage::problem)?;
        // The first page's: what changes between pages is told again.
        let position = *begun.get_or_insert(page.position);
        for (_, record) in &page.records {
            let block: Block = storage::decode(&record.value)?;
            found.insert(name(&block.principal()), block);
        }
        after = page.records.into_iter().next_back().map(|(key, _)| key);
        if !page.more || after.is_none() {
            return Ok((position, found));
        }
    }
}

fn partition(tenant: &TenantId) -> Result<Partition, Problem> {
    Partition::new(tenant.clone(), KIND, "all").map_err(storage::problem)
}

fn name(principal: &Principal) -> String {
    format!("{}:{}", principal.kind, principal.id)
}

fn key(principal: &Principal) -> Result<Key, Problem> {
    Key::new(name(principal)).map_err(storage::problem)
}
