//! Tenants that are looked up: which tenants a user is a member of, and with which role.
//!
//! For issuers whose tokens say who someone is and not for whom he acts, as those of Supabase.
//! The token, never the request, chooses among several tenants.

use crate::identity::refused;
use ahash::RandomState;
use async_trait::async_trait;
use clock::SharedClock;
use parking_lot::Mutex;
use protocol::Problem;
use serde::Deserialize;
use std::{collections::HashMap, fmt, sync::Arc, time::Duration};
use types::{Role, TenantId, Timestamp};

/// Memberships of one user that are read; a user with more is refused.
pub const PER_USER_MAX: usize = 1_000;

/// Where memberships are, and for how long they are remembered.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The database, `postgres://…`; that of `stores.durable` or `stores.hot`, unless given.
    pub database: Option<String>,
    /// The table or view, `schema.name`.
    pub table: String,
    /// The column that holds the token's `sub`: `user_id` unless told otherwise.
    #[serde(default = "user_column")]
    pub user_column: String,
    /// The column that holds the tenant: `tenant_id` unless told otherwise.
    #[serde(default = "tenant_column")]
    pub tenant_column: String,
    /// The column that holds one role of ours, or nothing; no roles unless given.
    pub role_column: Option<String>,
    /// How long an answer of the table is trusted, 1s to 10m: whoever is removed from it is let
    /// in for so long.
    #[serde(default = "cached_for", with = "types::duration")]
    pub cached_for: Duration,
    /// Users whose memberships are remembered, 1 to 1000000; with more, the oldest go.
    #[serde(default = "cached_max")]
    pub cached_max: usize,
}

/// Shows no password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("table", &self.table)
            .field("user_column", &self.user_column)
            .field("tenant_column", &self.tenant_column)
            .field("role_column", &self.role_column)
            .field("cached_for", &self.cached_for)
            .field("cached_max", &self.cached_max)
            .finish_non_exhaustive()
    }
}

fn user_column() -> String {
    "user_id".into()
}

fn tenant_column() -> String {
    "tenant_id".into()
}

fn cached_for() -> Duration {
    Duration::from_secs(60)
}

fn cached_max() -> usize {
    10_000
}

impl Config {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.cached_for) {
            return Err("`membership.cached_for` must be 1s to 10m".into());
        }
        if !(1..=1_000_000).contains(&self.cached_max) {
            return Err("`membership.cached_max` must be 1 to 1000000".into());
        }
        Ok(())
    }
}

/// One membership as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Of which tenant.
    pub tenant: String,
    /// In which role.
    pub role: Option<String>,
}

/// Reads a table of memberships. The edge implements it.
#[async_trait]
pub trait Members: Send + Sync {
    /// Every membership of `user`, up to [`PER_USER_MAX`] and one more; none if nobody knows
    /// him.
    ///
    /// # Errors
    /// [`store::Error::Unavailable`] if it cannot be told now.
    async fn of(&self, user: &str) -> Result<Vec<Membership>, store::Error>;
}

/// Memberships of one issuer's users, remembered within bounds.
pub(super) struct Memberships {
    members: Arc<dyn Members>,
    clock: SharedClock,
    cached_for: Duration,
    cached_max: usize,
    known: Mutex<Known>,
}

/// The last two generations of what was asked: when the younger is full, the older goes.
#[derive(Default)]
struct Known {
    young: HashMap<Box<str>, Answer, RandomState>,
    old: HashMap<Box<str>, Answer, RandomState>,
}

#[derive(Clone)]
struct Answer {
    memberships: Arc<[Membership]>,
    until: Timestamp,
}

/// For whom a user acts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Acting {
    pub(super) tenant: TenantId,
    pub(super) roles: Vec<Role>,
    /// Until when this is trusted.
    pub(super) until: Timestamp,
}

impl Memberships {
    pub(super) fn new(config: &Config, members: Arc<dyn Members>, clock: SharedClock) -> Self {
        let Config { cached_for, cached_max, .. } = *config;
        Self { members, clock, cached_for, cached_max, known: Mutex::default() }
    }

    /// For whom `user` acts: for the tenant that his token `names`, or his only one.
    ///
    /// # Errors
    /// `unauthenticated` if he is no member; `store_unavailable` if it cannot be told now.
    pub(super) async fn of(&self, user: &str, names: Option<&str>) -> Result<Acting, Problem> {
        let now = self.clock.now();
        let known = self.known.lock().get(user, now);
        let answer = match known {
            Some(answer) => answer,
            None => {
                let asked = self.members.of(user).await;
                let memberships = asked.map_err(crate::storage::problem)?.into();
                let answer = Answer { memberships, until: now.plus(self.cached_for) };
                self.known.lock().keep(user, answer.clone(), self.cached_max);
                answer
            }
        };
        choose(&answer.memberships, names, answer.until)
    }
}

impl Known {
    fn get(&self, user: &str, now: Timestamp) -> Option<Answer> {
        let known = self.young.get(user).or_else(|| self.old.get(user));
        known.filter(|answer| now < answer.until).cloned()
    }

    fn keep(&mut self, user: &str, answer: Answer, most: usize) {
        if self.young.len() >= most.div_ceil(2) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(user.into(), answer);
    }
}

fn choose(
    memberships: &[Membership],
    names: Option<&str>,
    until: Timestamp,
) -> Result<Acting, Problem> {
    if memberships.len() > PER_USER_MAX {
        return Err(refused("the user is a member of too many tenants"));
    }
    let first = memberships.first().ok_or_else(|| refused("the user is a member of no tenant"))?;
    let tenant = match names {
        Some(named) if memberships.iter().any(|of| of.tenant == named) => named,
        Some(_) => return Err(refused("the user is no member of the tenant that the token names")),
        None if memberships.iter().all(|of| of.tenant == first.tenant) => &first.tenant,
        None => {
            let detail = "the user is a member of several tenants, and the token names none";
            return Err(refused(detail));
        }
    };
    let ours = memberships.iter().filter(|of| of.tenant == tenant);
    let roles = ours.filter_map(|of| of.role.as_deref()).map(Role::new);
    let wrong = |error: types::InvalidId| refused(&error.to_string());
    Ok(Acting {
        tenant: TenantId::new(tenant).map_err(wrong)?,
        roles: roles.collect::<Result<_, _>>().map_err(wrong)?,
        until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::ManualClock;
    use protocol::Code;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    /// A table of a few rows that counts how often it is read.
    #[derive(Default)]
    struct Table {
        rows: Mutex<Vec<(&'static str, &'static str, Option<&'static str>)>>,
        read: AtomicUsize,
    }

    #[async_trait]
    impl Members for Table {
        async fn of(&self, user: &str) -> Result<Vec<Membership>, store::Error> {
            self.read.fetch_add(1, Ordering::Relaxed);
            let rows = self.rows.lock();
            let own = rows.iter().filter(|(of, ..)| *of == user);
            Ok(own
                .map(|(_, tenant, role)| Membership {
                    tenant: (*tenant).to_owned(),
                    role: role.map(str::to_owned),
                })
                .collect())
        }
    }

    fn memberships(cached_max: usize) -> (Memberships, Arc<Table>, Arc<ManualClock>) {
        let clock = ManualClock::new(NOW, 1);
        let table = Arc::<Table>::default();
        *table.rows.lock() = vec![
            ("ann", "acme", Some("editor")),
            ("ann", "acme", Some("admin")),
            ("bob", "acme", None),
            ("bob", "globex", None),
            ("eve", "no tenant", None),
        ];
        let config: Config = serde_json::from_str(r#"{"table":"public.members"}"#).unwrap();
        let config = Config { cached_max, ..config };
        (Memberships::new(&config, table.clone(), clock.clone()), table, clock)
    }

    #[tokio::test]
    async fn the_token_chooses_among_the_tables_tenants() {
        let (memberships, ..) = memberships(10);
        let of = async |user, names| {
            let acting = memberships.of(user, names).await;
            acting.map(|acting| acting.tenant.as_str().to_owned()).map_err(|problem| problem.code)
        };
        assert_eq!(of("ann", None).await.as_deref(), Ok("acme"));
        assert_eq!(of("bob", Some("globex")).await.as_deref(), Ok("globex"));
        let no = Err(Code::Unauthenticated);
        for (user, names) in
            [("bob", None), ("ann", Some("globex")), ("nobody", None), ("eve", None)]
        {
            assert_eq!(of(user, names).await, no, "{user} {names:?}");
        }
        let roles = memberships.of("ann", None).await.unwrap().roles;
        assert_eq!(roles.iter().map(Role::as_str).collect::<Vec<_>>(), ["editor", "admin"]);
    }

    #[tokio::test]
    async fn answers_are_remembered_for_a_time_and_up_to_a_number() {
        let (memberships, table, clock) = memberships(4);
        let reads = || table.read.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(memberships.of("ann", None).await.unwrap().until, NOW.plus(cached_for()));
            assert!(memberships.of("nobody", None).await.is_err());
        }
        assert_eq!(reads(), 2, "that there is none is remembered, too");
        table.rows.lock().clear();
        clock.advance(cached_for() - Duration::from_millis(1));
        assert!(memberships.of("ann", None).await.is_ok());
        clock.advance(Duration::from_millis(1));
        assert!(memberships.of("ann", None).await.is_err());
        for n in 0..100 {
            let _ = memberships.of(&n.to_string(), None).await;
        }
        let known = memberships.known.lock();
        assert!(known.young.len() + known.old.len() <= 4);
    }
}
