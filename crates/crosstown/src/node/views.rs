//! A node, as its operator sees it.

use crate::telemetry;
use api::{
    admin::{Live, TlsView, Vitals},
    cache::CacheView,
    cores::CoreView,
    services::{GuardView, InstanceView, ServicesView, TroubleView},
};
use gateway::{CacheReport, CoreLoad, Gateway, TlsStatus};
use realtime::Realtime;
use soa::{Origin, Registry};
use std::sync::Arc;
use traffic_cop::state::SharedStates;

/// How the node is. `told`: what was told of figures, if they are told to anybody.
pub(super) fn vitals(
    gateway: Arc<Gateway>,
    realtime: Arc<Realtime>,
    states: SharedStates,
    told: Option<Arc<telemetry::Counts>>,
) -> Arc<dyn Fn() -> Vitals + Send + Sync> {
    Arc::new(move || Vitals {
        exports: told.as_ref().map(|told| told.both()),
        connections: gateway.connections(),
        sockets: realtime.connection_count(),
        closings: realtime.closings(),
        followed: realtime.followed(),
        live: Live { documents: states.live(), channels: realtime.live() },
        passed: realtime.passed(),
        in_flight: gateway.in_flight(),
        draining: gateway.is_leaving(),
        cores: gateway
            .loads()
            .into_iter()
            .map(|CoreLoad { lag, level, refused }| CoreView { lag, level, refused })
            .collect(),
        tls: gateway.tls().map(|TlsStatus { problem, renewals, failed }| TlsView {
            problem,
            renewals,
            failed,
        }),
    })
}

/// The services, their instances, and what guards them.
pub(super) fn services(gateway: Arc<Gateway>, registry: Registry) -> api::services::See {
    Arc::new(move || {
        let mut view = ServicesView::default();
        gateway.instances(|service, instance, weight, origin, elapsed| {
            let registered = match origin {
                Origin::Registered(id) => registry.known(service, id),
                Origin::Config | Origin::Dns => None,
            };
            let told = registered.as_ref();
            view.instances.push(InstanceView {
                service: service.to_owned(),
                instance: instance.authority().to_owned(),
                weight,
                origin: origin.as_str(),
                by: told.map(|told| format!("{}/{}", told.tenant, told.by)),
                id: told.map(|told| told.id.to_string()),
                expires: told.map(|told| told.expires.0),
                condition: instance.condition(elapsed).as_str(),
                in_flight: instance.in_flight(),
                connections: instance.connections(),
                latency_ms: (instance.latency().as_secs_f64() * 1e5).round() / 100.0,
            });
        });
        gateway.lookup_troubles(|service, why| {
            view.troubles.push(TroubleView { service: service.to_owned(), why });
        });
        gateway.guards(|service, report| {
            view.guards.push(GuardView {
                service: service.to_owned(),
                breaker: report.breaker,
                in_flight: report.concurrency.map(|(in_flight, _)| in_flight),
                limit: report.concurrency.map(|(_, limit)| limit),
                retries: report.retries,
                hedges: report.hedges,
                shed: report.shed,
                broken: report.broken,
            });
        });
        view
    })
}

/// The answers that are kept.
pub(super) fn cache(gateway: &Arc<Gateway>) -> api::cache::Cache {
    let (seen, forgetful) = (gateway.clone(), gateway.clone());
    api::cache::Cache {
        see: Arc::new(move || {
            let CacheReport { hits, misses, revalidated, targets, bytes } = seen.cached();
            CacheView { hits, misses, revalidated, targets, bytes }
        }),
        forget: Arc::new(move || forgetful.forget_cached()),
    }
}
