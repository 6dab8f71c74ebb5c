//! The last second of a tenant, while somebody follows it.

use crate::analytics::{
    Analytics,
    figures::{Counts, Figures},
    names::RouteName,
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use types::{TenantId, Timestamp};

/// How the name of the channel that shows it begins; nothing follows.
pub const CHANNEL: &str = "$traffic";
/// Routes that are told of a second, the busiest.
const ROUTES_MAX: usize = 50;

/// What one node counted of a tenant in a second.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Second {
    /// When it ended, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// Everything together.
    pub total: Figures,
    /// By route, the fifty busiest.
    pub routes: Vec<SecondOfRoute>,
}

/// What it counted of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SecondOfRoute {
    /// The route.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Analytics {
    /// Counts the seconds of these tenants from now on, and of no others.
    pub fn follow(&self, tenants: &[TenantId]) {
        let followed = &mut self.totals.lock().followed;
        followed.retain(|tenant, _| tenants.contains(tenant));
        for tenant in tenants {
            followed.entry(tenant.clone()).or_default();
        }
    }

    /// What was counted of a tenant that is followed, since this was last asked: a second, if it is
    /// asked each second.
    #[must_use]
    pub fn second(&self, tenant: &TenantId, now: Timestamp) -> Option<Second> {
        let counted = std::mem::take(self.totals.lock().followed.get_mut(tenant)?);
        let over = Duration::from_secs(1);
        let mut total = Counts::default();
        counted.values().for_each(|counts| total.add(counts));
        let mut routes: Vec<_> = counted.into_iter().collect();
        routes.sort_unstable_by_key(|(route, counts)| {
            (std::cmp::Reverse(counts.usage.requests), *route)
        });
        routes.truncate(ROUTES_MAX);
        let routes = routes.into_iter().map(|(route, counts)| {
            let RouteName { route, service, .. } = self.names.name(route);
            SecondOfRoute { route, service, figures: Figures::of(&counts, over) }
        });
        Some(Second { at: now, total: Figures::of(&total, over), routes: routes.collect() })
    }
}
