//! How the services are, as this node sees them.

use crate::{admin, answer::Answer, document::told, request::Json};
use aide::axum::{ApiRouter, routing::get_with};
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use std::{fmt::Write, sync::Arc};

/// One instance of a service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "InstanceOfService")]
pub struct InstanceView {
    /// The service.
    pub service: String,
    /// Host and port.
    pub instance: String,
    /// Its share beside the others'.
    pub weight: u32,
    /// Where it is known from: `config`, `dns` or `registered`.
    pub origin: &'static str,
    /// By whom, if it is registered: tenant and principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Its id, by which the operator can remove it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it ends without another heartbeat, in milliseconds since 1970 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// `fit`, `ejected` or `unfit`.
    pub condition: &'static str,
    /// Requests and tunnels from this node that have not ended.
    pub in_flight: usize,
    /// Connections from this node.
    pub connections: usize,
    /// What it took to answer at its worst lately, in milliseconds; 0 where it is the only
    /// instance, which nobody compares.
    pub latency_ms: f64,
}

/// What stands between callers and a service: its breaker, its bound on calls at once, its
/// budget of further attempts.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "GuardOfService")]
pub struct GuardView {
    /// The service.
    pub service: String,
    /// `closed`, `open` or `probing`; `null` without a breaker.
    pub breaker: Option<&'static str>,
    /// Calls that wait for the head of their answer; `null` without a bound.
    pub in_flight: Option<usize>,
    /// How many there may be.
    pub limit: Option<usize>,
    /// Attempts after a failed one, since the node started.
    pub retries: u64,
    /// Second instances asked because the first was slow.
    pub hedges: u64,
    /// Calls refused because there were as many as there may be.
    pub shed: u64,
    /// Calls refused by the breaker.
    pub broken: u64,
}

/// A service whose name the DNS does not tell of at this time.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "TroubleOfService")]
pub struct TroubleView {
    /// The service.
    pub service: String,
    /// What the lookup came to.
    pub why: String,
}

/// Every service.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(rename = "ServicesOfNode")]
pub struct ServicesView {
    /// By service.
    pub instances: Vec<InstanceView>,
    /// Of those that are looked up: what is in the way.
    pub troubles: Vec<TroubleView>,
    /// Of the services that have one.
    pub guards: Vec<GuardView>,
}

/// Where the services are looked at.
pub type See = Arc<dyn Fn() -> ServicesView + Send + Sync>;

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    let summary = "How the services are, as this node sees them.";
    ApiRouter::new().api_route("/services", get_with(services, told("readServices", summary, &[])))
}

async fn services(State(see): State<See>) -> Answer<Json<ServicesView>> {
    Ok(Json(see()))
}

/// Writes the guards' figures for Prometheus.
pub(crate) fn metrics(text: &mut String, guards: &[GuardView]) {
    type Read = fn(&GuardView) -> u64;
    let counters: [(&str, &str, Read); 4] = [
        ("retries", "Attempts after a failed one.", |guard| guard.retries),
        ("hedges", "Second instances asked because the first was slow.", |guard| guard.hedges),
        ("shed", "Calls refused since the service had as many as it may.", |guard| guard.shed),
        ("broken", "Calls refused by an open breaker.", |guard| guard.broken),
    ];
    for (what, help, read) in counters {
        let name = format!("crosstown_service_{what}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for guard in guards {
            let _ = writeln!(text, "{name}{{service=\"{}\"}} {}", guard.service, read(guard));
        }
    }
    let name = "crosstown_service_concurrency_max";
    let help = "Calls that the service is given at once.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for guard in guards {
        if let Some(limit) = guard.limit {
            let _ = writeln!(text, "{name}{{service=\"{}\"}} {limit}", guard.service);
        }
    }
}
