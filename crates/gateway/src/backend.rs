//! The services of a route, and which of them takes a request.

use crate::{config::RouteConfig, sticky};
use bridge::Realms;
use soa::{HashKey, Service, Services};
use std::{sync::Arc, time::Duration};
use traffic_cop::analytics::{Analytics, RouteId};

/// A service behind a route.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The route with this service, to those who count.
    pub(crate) id: RouteId,
    pub(crate) service: Arc<Service>,
    pub(crate) timeout: Duration,
    weight: u32,
}

/// The services of a route; at least one.
#[derive(Debug)]
pub(crate) struct Backends {
    all: Box<[Backend]>,
    total: u64,
    by: Option<HashKey>,
}

impl Backends {
    /// # Errors
    /// What to change.
    pub(crate) fn compile(
        route: &RouteConfig,
        services: &Services,
        realms: &Realms,
        analytics: &Analytics,
    ) -> Result<Self, String> {
        let given: Vec<(&str, u32)> = match (route.service.as_str(), &*route.split) {
            ("", []) => return Err("give `service` or `split`".into()),
            (service, []) => vec![(service, 1)],
            ("", split) => split.iter().map(|part| (part.service.as_str(), part.weight)).collect(),
            (_, _) => return Err("give `service` or `split`, not both".into()),
        };
        if route.split.is_empty() && route.split_by.is_some() {
            return Err("`split_by` goes with `split`".into());
        }
        let all = given
            .into_iter()
            .map(|(name, weight)| {
                let service = named(services, name)?;
                let timeout = route.timeout.unwrap_or(service.config().response_timeout);
                Ok(Backend {
                    id: analytics.route_in(
                        &route.name,
                        name,
                        realms.member(name).map(|member| &*member.realm),
                    ),
                    service: Arc::clone(service),
                    timeout,
                    weight,
                })
            })
            .collect::<Result<Box<[_]>, String>>()?;
        let total = all.iter().map(|backend| u64::from(backend.weight)).sum();
        if total == 0 {
            return Err("of `split`, one weight at least has to be more than zero".into());
        }
        Ok(Self { all, total, by: route.split_by.clone() })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.all.iter()
    }

    /// Their names and shares.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (&str, u32)> {
        self.all.iter().map(|backend| (backend.service.name(), backend.weight))
    }

    /// The first, whoever takes a request.
    pub(crate) fn first(&self) -> &Backend {
        &self.all[0]
    }

    /// Who takes a request: the same for equal values of `split_by`, and else by chance.
    pub(crate) fn choose(
        &self,
        asked: &sticky::Asked<'_>,
        random: impl FnOnce() -> u64,
    ) -> &Backend {
        if let [only] = &*self.all {
            return only;
        }
        let point = match &self.by {
            Some(by) => soa::key_hash(&sticky::key(asked, by).hash().to_le_bytes()),
            None => random(),
        };
        // The upper bits are the better ones.
        let mut left = ((u128::from(point) * u128::from(self.total)) >> 64) as u64;
        for backend in &self.all {
            match left.checked_sub(u64::from(backend.weight)) {
                Some(rest) => left = rest,
                None => return backend,
            }
        }
        self.first()
    }
}

/// # Errors
/// That there is none of this name.
pub(crate) fn named<'a>(services: &'a Services, name: &str) -> Result<&'a Arc<Service>, String> {
    services.get(name).ok_or_else(|| format!("there is no service `{name}`"))
}
