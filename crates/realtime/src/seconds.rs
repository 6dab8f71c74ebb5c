//! The traffic of a tenant, second by second: what each node counted is published to a channel that
//! only services and admins of the tenant may follow, while somebody does.
//!
//! A node knows its own followers. It says to the others, by a record that soon expires, that a
//! tenant is followed; so nobody has to clean up after one that is gone.

use crate::{Reach, Realtime, channel::Channel};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};
use store::{Commit, Key, Kind, Partition, Write};
use traffic_cop::analytics::{CHANNEL, Second};
use types::TenantId;

const KIND: Kind = Kind::new("traffic-followed");
/// How often nodes tell each other, and how long what was told holds.
const TOLD_EVERY: u32 = 5;
const HOLDS: Duration = Duration::from_secs(15);
/// Tenants whose seconds are told at a time; those beyond are told nothing.
const TENANTS_MAX: usize = 100;

/// What is published.
#[derive(Serialize)]
struct Record<'a> {
    node: &'a str,
    #[serde(flatten)]
    second: Second,
}

impl Realtime {
    /// Tells each second, until the sockets are gone.
    pub async fn tell_seconds(sockets: Weak<Self>) {
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut elsewhere, mut before) = (BTreeSet::new(), BTreeSet::new());
        for number in 0_u32.. {
            pace.tick().await;
            let Some(node) = sockets.upgrade() else { break };
            let here = node.broker.census().tenants_of_seconds();
            let is_shared = match node.parts.reach {
                Reach::Here => false,
                Reach::FannedOut(_) | Reach::Stored => true,
            };
            if is_shared && number.is_multiple_of(TOLD_EVERY) {
                match node.exchange_followed(&here).await {
                    Ok(told) => elsewhere = told,
                    Err(error) => tracing::warn!(%error, "who follows traffic is not told"),
                }
            }
            let followed = here.union(&elsewhere).take(TENANTS_MAX).cloned();
            let followed: BTreeSet<TenantId> = followed.collect();
            node.parts.analytics.follow(&followed.iter().cloned().collect::<Vec<_>>());
            for tenant in &followed {
                node.tell_second(tenant).await;
            }
            for tenant in before.difference(&here) {
                node.clear_seconds(tenant).await;
            }
            before = here;
        }
    }

    /// Tells other nodes whom clients follow here, and answers whom they do anywhere.
    async fn exchange_followed(
        self: &Arc<Self>,
        here: &BTreeSet<TenantId>,
    ) -> Result<BTreeSet<TenantId>, store::Error> {
        let partition = Partition::new(TenantId::system(), KIND, "")?;
        if !here.is_empty() {
            let mut commit = Commit::new(partition.clone()).applied();
            for tenant in here.iter().take(TENANTS_MAX) {
                let key = Key::new(tenant.as_str())?;
                let value = bytes::Bytes::new();
                commit = commit.write(Write::Put { key, value, expires: Some(HOLDS) });
            }
            self.parts.store.commit(commit).await?;
        }
        let page = self.parts.store.scan(&partition, b"", None, TENANTS_MAX).await?;
        let names = page.records.iter().map(|(key, _)| str::from_utf8(key.as_bytes()));
        Ok(names.filter_map(|name| TenantId::new(name.ok()?).ok()).collect())
    }

    async fn tell_second(&self, tenant: &TenantId) {
        let now = self.parts.clock.now();
        let Some(second) = self.parts.analytics.second(tenant, now) else { return };
        let record = Record { node: &self.parts.node, second };
        let Ok(data) = serde_json::value::to_raw_value(&record) else { return };
        let published = match Channel::new(tenant, CHANNEL) {
            Ok(channel) => self.publications.pass_on(channel, data).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = published {
            tracing::debug!(problem.detail, %tenant, "a second of traffic is not told");
        }
    }

    async fn clear_seconds(&self, tenant: &TenantId) {
        let cleared = match Channel::new(tenant, CHANNEL) {
            Ok(channel) => self.publications.clear_passed(&channel).await,
            Err(problem) => Err(problem),
        };
        if let Err(problem) = cleared {
            tracing::warn!(problem.detail, %tenant, "seconds of traffic stay in the store");
        }
    }
}
