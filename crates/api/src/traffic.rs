//! Traffic: `/crosstown/v1/analytics/…` tells callers of their tenant, `/analytics/…` on the
//! operator's listener of all of them.
//!
//! Everybody sees the figures of his tenant. What single users and sessions do is for services and
//! admins of the tenant; anybody may ask about himself.

use crate::{
    answer::{Answer, Refusal, json, refuse},
    request::{By as Caller, Wanted},
};
use axum::{Router, extract::State, routing::get};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::Deserialize;
use serde_json::json as object;
use std::{sync::Arc, time::Duration};
use traffic_cop::analytics::{Analytics, Ask, By, Filter, Naming, Period, TOP_MAX};
use types::{PrincipalId, SessionId, TenantId, Timestamp};

/// Requests of the log that are told unless more are asked for, and those that are told at most.
const LOGGED: usize = 100;
const LOGGED_MAX: usize = 1_000;

#[derive(Clone)]
struct Traffic {
    analytics: Arc<Analytics>,
    clock: SharedClock,
}

pub(crate) fn routes(analytics: Arc<Analytics>, clock: SharedClock) -> Router {
    Router::new()
        .route("/analytics/traffic", get(of_tenant))
        .route("/analytics/notes", get(notes_of_tenant))
        .route("/analytics/log", get(log_of_tenant))
        .with_state(Traffic { analytics, clock })
}

/// As [`routes`], for the operator: over all tenants.
pub(crate) fn admin_routes(analytics: Arc<Analytics>, clock: SharedClock) -> Router {
    Router::new()
        .route("/analytics/traffic", get(of_all))
        .route("/analytics/notes", get(notes_of_all))
        .route("/analytics/log", get(log_of_all))
        .with_state(Traffic { analytics, clock })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    range: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// For the operator: of one tenant.
    tenant: Option<TenantId>,
    user: Option<PrincipalId>,
    session: Option<String>,
    top: Option<usize>,
    by: Option<String>,
}

fn wrong<T>(read: Result<T, String>) -> Result<T, Refusal> {
    read.map_err(|detail| Problem::new(Code::BadRequest, detail).into())
}

fn session(text: Option<&str>) -> Result<Option<SessionId>, Refusal> {
    let read = text.map(|text| text.parse::<SessionId>()).transpose();
    wrong(read.map_err(|error| format!("`session`: {error}")))
}

impl Asked {
    fn ask(self, now: Timestamp) -> Result<Ask, Refusal> {
        let (from, to) = (self.from.as_deref(), self.to.as_deref());
        let period = wrong(Period::read(self.range.as_deref(), from, to, now))?;
        if self.top.is_some_and(|top| !(1..=TOP_MAX).contains(&top)) {
            return refuse(Code::BadRequest, format!("`top` must be 1 to {TOP_MAX}"));
        }
        let by = wrong(self.by.as_deref().map_or(Ok(By::default()), By::parse))?;
        let base = Ask::new(period, self.tenant);
        Ok(Ask {
            user: self.user,
            session: session(self.session.as_deref())?,
            top: self.top.unwrap_or(base.top),
            by,
            ..base
        })
    }
}

async fn of_tenant(
    State(traffic): State<Traffic>,
    caller: Caller,
    Wanted(asked): Wanted<Asked>,
) -> Answer {
    if asked.tenant.is_some() {
        return refuse(Code::BadRequest, "`tenant` is always the caller's own");
    }
    let now = traffic.clock.now();
    let asked = asked.ask(now)?;
    let of_somebody = asked.user.is_some() || asked.session.is_some();
    let of_himself = asked.user.as_ref().is_none_or(|user| *user == caller.principal.id)
        && asked.session.is_none_or(|session| Some(session) == caller.session);
    let naming = match () {
        () if caller.is_trusted() || (of_somebody && of_himself) => Naming::Shown,
        () if of_somebody => return refuse(Code::Forbidden, "only services and admins see that"),
        () => Naming::Hidden,
    };
    // An agent may have a user's name.
    let kind = (!caller.is_trusted()).then_some(caller.principal.kind);
    let ask = Ask { tenant: Some(caller.tenant.clone()), naming, kind, ..asked };
    json(traffic.analytics.report(&ask, now).await)
}

async fn of_all(State(traffic): State<Traffic>, Wanted(asked): Wanted<Asked>) -> Answer {
    let now = traffic.clock.now();
    let ask = Ask { naming: Naming::Shown, ..asked.ask(now)? };
    json(traffic.analytics.report(&ask, now).await)
}

async fn notes_of_tenant(State(traffic): State<Traffic>, caller: Caller) -> Answer {
    let notes = traffic.analytics.notes(Some(&caller.tenant), traffic.clock.now()).await;
    json(object!({ "notes": notes }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotesAsked {
    tenant: Option<TenantId>,
}

async fn notes_of_all(State(traffic): State<Traffic>, Wanted(asked): Wanted<NotesAsked>) -> Answer {
    let notes = traffic.analytics.notes(asked.tenant.as_ref(), traffic.clock.now()).await;
    json(object!({ "notes": notes }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogAsked {
    tenant: Option<TenantId>,
    route: Option<String>,
    service: Option<String>,
    /// At least this status.
    status: Option<u16>,
    /// At least so long.
    slower: Option<String>,
    user: Option<PrincipalId>,
    session: Option<String>,
    trace: Option<String>,
    /// Since this moment, in milliseconds since 1970.
    since: Option<u64>,
    limit: Option<usize>,
}

impl LogAsked {
    fn filter(self) -> Result<Filter, Refusal> {
        let limit = self.limit.unwrap_or(LOGGED);
        if !(1..=LOGGED_MAX).contains(&limit) {
            return refuse(Code::BadRequest, format!("`limit` must be 1 to {LOGGED_MAX}"));
        }
        let slower = self.slower.as_deref().map(types::duration::parse).transpose();
        let latency_min: Option<Duration> =
            wrong(slower.map_err(|error| format!("`slower`: {error}")))?;
        Ok(Filter {
            tenant: self.tenant,
            route: self.route,
            service: self.service,
            status_min: self.status,
            latency_min,
            user: self.user,
            session: session(self.session.as_deref())?,
            trace: self.trace,
            since: self.since.map(Timestamp),
            limit,
        })
    }
}

async fn log_of_tenant(
    State(traffic): State<Traffic>,
    caller: Caller,
    Wanted(asked): Wanted<LogAsked>,
) -> Answer {
    caller.speaks_for_tenant()?;
    if asked.tenant.is_some() {
        return refuse(Code::BadRequest, "`tenant` is always the caller's own");
    }
    let filter = Filter { tenant: Some(caller.tenant.clone()), ..asked.filter()? };
    json(traffic.analytics.logged(&filter))
}

async fn log_of_all(State(traffic): State<Traffic>, Wanted(asked): Wanted<LogAsked>) -> Answer {
    json(traffic.analytics.logged(&asked.filter()?))
}
