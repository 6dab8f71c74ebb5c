//! API keys: `ctk_{tenant}.{id}.{secret}`. The store holds a hash of the secret only.

use crate::{
    identity::{Hold, Looked, Revocations, Standing, refused, revocations::Basis},
    secret,
    storage::{self, Stored},
};
use clock::{Clock, SharedClock};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use store::{Check, Commit, Key, Kind, Partition, SharedStore};
use types::{
    Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId, Timestamp,
};

/// How an API key begins.
pub const PREFIX: &str = "ctk_";
const KIND: Kind = Kind::new("api-key");

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ApiKey {
    /// Its name within the tenant.
    pub id: String,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// What whoever uses it is.
    pub kind: PrincipalKind,
    /// Who uses it.
    pub principal: PrincipalId,
    /// The roles that it grants.
    pub roles: Vec<Role>,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created: Timestamp,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}

/// The record of a key.
#[derive(Serialize, Deserialize)]
struct KeyRecord {
    kind: PrincipalKind,
    principal: PrincipalId,
    roles: Vec<Role>,
    created: Timestamp,
    expires: Option<Timestamp>,
    hash: String,
}

impl Stored for KeyRecord {
    const VERSION: u8 = 1;
}

/// What a new key is to grant.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Who uses it.
    pub principal: PrincipalId,
    /// What it is: `service` unless told otherwise.
    #[serde(default = "service")]
    pub kind: PrincipalKind,
    /// The roles that it grants.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// When it ends, in milliseconds since 1970 UTC; never, unless told otherwise.
    #[serde(default)]
    pub expires: Option<Timestamp>,
}

fn service() -> PrincipalKind {
    PrincipalKind::Service
}

/// The keys of all tenants.
#[derive(Clone)]
pub struct ApiKeys {
    store: SharedStore,
    clock: SharedClock,
    revocations: Revocations,
}

impl ApiKeys {
    /// Keys kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock, revocations: Revocations) -> Self {
        Self { store, clock, revocations }
    }

    /// Makes a key. The text is shown once; nobody can read it again.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn create(&self, new: NewApiKey) -> Result<(ApiKey, String), Problem> {
        let id = draw_id(&*self.clock);
        let secret = secret::random(&*self.clock);
        let record = KeyRecord {
            kind: new.kind,
            principal: new.principal,
            roles: new.roles,
            created: self.clock.now(),
            expires: new.expires,
            hash: secret::hash(&secret),
        };
        let partition = partition(&new.tenant, &id)?;
        let commit = Commit::new(partition)
            .check(Check::Absent { key: record_key() })
            .put(record_key(), storage::encode(&record));
        self.store.commit(commit).await.map_err(storage::problem)?;
        let text = format!("{PREFIX}{}.{id}.{}", new.tenant, secret);
        Ok((shown(new.tenant, id, record), text))
    }

    /// Every key of a tenant.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, tenant: &TenantId) -> Result<Vec<ApiKey>, Problem> {
        let mut keys = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .store
                .list(tenant, &KIND, after.as_deref(), 100)
                .await
                .map_err(storage::problem)?;
            for partition in &page.partitions {
                if let Some(record) = self.read(partition).await? {
                    keys.push(shown(tenant.clone(), partition.id().to_owned(), record));
                }
            }
            match page.partitions.last() {
                Some(last) if page.more => after = Some(last.id().to_owned()),
                Some(_) | None => return Ok(keys),
            }
        }
    }

    /// Deletes a key; from then on it is refused.
    ///
    /// # Errors
    /// `not_found`, or those of the store.
    pub async fn delete(&self, tenant: &TenantId, id: &str) -> Result<(), Problem> {
        let partition = partition(tenant, id)?;
        if self.read(&partition).await?.is_none() {
            return Err(Problem::new(Code::NotFound, "there is no such API key"));
        }
        let commit = Commit::new(partition).write(store::Write::Delete { key: record_key() });
        self.store.commit(commit).await.map_err(storage::problem)?;
        self.revocations.revoke(tenant, None, "");
        Ok(())
    }

    pub(super) async fn identify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<(Caller, Hold), Problem> {
        let unknown = || refused("the API key is not known");
        let mut parts = token.strip_prefix(PREFIX).ok_or_else(unknown)?.splitn(3, '.');
        let (Some(tenant), Some(id), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let tenant = TenantId::new(tenant).map_err(|_| unknown())?;
        let partition = partition(&tenant, id).map_err(|_| unknown())?;
        let basis = Basis {
            partition: partition.clone(),
            key: record_key(),
            left: None,
            session: None,
            stands: |_| Looked::Stands(Standing::default()),
            known: Default::default(),
        };
        let hold = self.revocations.hold(basis);
        let record = self.read(&partition).await?.ok_or_else(unknown)?;
        if !secret::matches(secret, &record.hash) {
            return Err(unknown());
        }
        if record.expires.is_some_and(|at| at <= now) {
            return Err(Problem::new(Code::TokenExpired, "the API key has expired"));
        }
        let caller = Caller {
            roles: record.roles.into(),
            expires: record.expires,
            ..Caller::new(
                tenant,
                Principal { kind: record.kind, id: record.principal },
                CredentialKind::ApiKey,
            )
        };
        Ok((caller, hold))
    }

    async fn read(&self, partition: &Partition) -> Result<Option<KeyRecord>, Problem> {
        let record = self.store.get(partition, &record_key()).await.map_err(storage::problem)?;
        record.map(|record| storage::decode(&record.value)).transpose()
    }
}

fn partition(tenant: &TenantId, id: &str) -> Result<Partition, Problem> {
    Partition::new(tenant.clone(), KIND, id).map_err(storage::problem)
}

fn record_key() -> Key {
    Key::new("key").expect("a short key")
}

fn shown(tenant: TenantId, id: String, record: KeyRecord) -> ApiKey {
    let KeyRecord { kind, principal, roles, created, expires, hash: _ } = record;
    ApiKey { id, tenant, kind, principal, roles, created, expires }
}

/// An id that no command line takes for an option.
fn draw_id(clock: &dyn Clock) -> String {
    let mut drawn = std::iter::repeat_with(|| storage::random_text::<9>(clock));
    drawn.find(|id| !id.starts_with('-')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_is_no_option() {
        let clock = clock::SystemClock::shared();
        assert!((0..1_000).all(|_| !super::draw_id(&*clock).starts_with('-')));
    }
}
