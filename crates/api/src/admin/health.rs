//! `/health` and `/ready`: what anybody may ask who reaches the listener.

use crate::{
    admin::{Live, Parts, Vitals, millis},
    answer::{Answer, OkOr, refuse},
    cores::{self, CoreTold},
    document::told,
    request::Json,
};
use aide::axum::{ApiRouter, routing::get_with};
use axum::extract::State;
use protocol::Code;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use store::{Capabilities, Store, Survives};
use store_guard::{Condition, GuardedStore, Report};

pub(super) fn routes() -> ApiRouter<Parts> {
    let draining = &[Code::Draining];
    ApiRouter::new()
        .api_route("/health", get_with(health, told("readHealth", "How the node is.", &[])))
        .api_route("/ready", get_with(ready, told("readReady", "Whether it is ready.", draining)))
}

/// How a node is.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `ok`, `degraded`: not all that it does is as it should be; `store_unavailable`: not
    /// everything can be done.
    status: &'static str,
    /// The stores, by tier.
    stores: BTreeMap<&'static str, StoreTold>,
    /// Whether it is shutting down.
    draining: bool,
    /// What is in its memory alone.
    live: LiveTold,
    /// The cores of the edge.
    cores: Vec<CoreTold>,
    /// TLS of the edge, if it is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsTold>,
    /// What passes between nodes, unless it goes through a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    fanout: Option<EngineTold>,
}

/// How a store is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StoreHealth")]
struct StoreTold {
    #[serde(flatten)]
    is: EngineTold,
    /// The engine and where it is, without secrets.
    engine: String,
    /// What an acknowledged write survives: `nothing`, `process`, `power_loss`.
    acknowledged_survives: &'static str,
}

/// How an engine is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EngineHealth")]
struct EngineTold {
    /// `well`, `slow`, `read_only` or `away`.
    condition: &'static str,
    /// Since when, in milliseconds.
    for_ms: u64,
    /// How long answers take, smoothed.
    latency_ms: u64,
    /// Calls that wait for one.
    under_way: usize,
}

/// What is in a node's memory alone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Live")]
struct LiveTold {
    documents: Amount,
    channels: Amount,
}

/// How many, and how many bytes.
#[derive(Serialize, JsonSchema)]
struct Amount {
    count: u64,
    bytes: u64,
}

/// TLS of the edge.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TlsHealth")]
struct TlsTold {
    /// Why the files as they are now are not taken.
    problem: Option<String>,
    /// How often they were taken anew.
    renewals: u64,
}

/// Whether the node does its work, and each engine its own. It is not shed, and not guarded.
/// 503 while a store is away, since then not everything can be done; else 200.
async fn health(State(parts): State<Parts>) -> Answer<OkOr<503, Health>> {
    let Vitals { draining, live, cores, tls, .. } = (parts.vitals)();
    let reports = parts.stores.iter().map(|(tier, store)| (*tier, store, store.report()));
    let reports: Vec<_> = reports.collect();
    let worst = reports.iter().map(|(_, _, report)| report.condition).max();
    let fanout = parts.live.as_ref().map(|live| live.report());
    // TLS goes on by the files of before, whose certificates will end. Without the fan-out, what
    // needs no history waits or is refused, and everything else goes on.
    let is_degraded = matches!(worst, Some(Condition::Slow | Condition::ReadOnly))
        || cores::is_overloaded(&cores)
        || tls.as_ref().is_some_and(|tls| tls.problem.is_some())
        || fanout.as_ref().is_some_and(|fanout| fanout.condition != Condition::Well);
    let is_away = worst == Some(Condition::Away);
    let health = Health {
        status: match (is_away, is_degraded) {
            (true, _) => "store_unavailable",
            (false, true) => "degraded",
            (false, false) => "ok",
        },
        stores: reports
            .iter()
            .map(|(tier, store, report)| (*tier, told_of(store, report)))
            .collect(),
        draining,
        live: live.into(),
        cores: cores::told(&cores),
        tls: tls.map(|tls| TlsTold { problem: tls.problem, renewals: tls.renewals }),
        fanout: fanout.as_ref().map(EngineTold::from),
    };
    Ok(if is_away { OkOr::Else(health) } else { OkOr::Ok(health) })
}

fn told_of(store: &GuardedStore, report: &Report) -> StoreTold {
    let Capabilities { engine, survives } = store.capabilities();
    let acknowledged_survives = match survives {
        Survives::Nothing => "nothing",
        Survives::Process => "process",
        Survives::PowerLoss => "power_loss",
    };
    StoreTold { is: report.into(), engine, acknowledged_survives }
}

impl From<&Report> for EngineTold {
    fn from(report: &Report) -> Self {
        Self {
            condition: report.condition.as_str(),
            for_ms: millis(report.lasts),
            latency_ms: millis(report.latency),
            under_way: report.under_way,
        }
    }
}

impl From<Live> for LiveTold {
    fn from(live: Live) -> Self {
        let told = |(count, bytes)| Amount { count, bytes };
        Self { documents: told(live.documents), channels: told(live.channels) }
    }
}

/// That a node takes new connections.
#[derive(Serialize, JsonSchema)]
struct Ready {
    /// `ready`.
    status: &'static str,
}

async fn ready(State(parts): State<Parts>) -> Answer<Json<Ready>> {
    if (parts.vitals)().draining {
        return refuse(Code::Draining, "the node is shutting down");
    }
    Ok(Json(Ready { status: "ready" }))
}
