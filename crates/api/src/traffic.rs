//! Traffic: `/crosstown/v1/analytics/…` tells callers of their tenant, `/analytics/…` on the
//! operator's listener of all of them.
//!
//! Everybody sees the figures of his tenant. What single users and sessions do is for services and
//! admins of the tenant; anybody may ask about himself.

use crate::{
    Parts, admin,
    answer::{Answer, Refusal, refuse},
    document::told,
    request::{By as Caller, Json, Wanted},
};
use aide::axum::{ApiRouter, routing::get_with};
use axum::extract::{FromRef, State};
use clock::SharedClock;
use protocol::{Code, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use traffic_cop::analytics::{
    Analytics, Ask, By, Filter, Logged, Naming, Note, Period, Report, TOP_MAX,
};
use types::{PrincipalId, SessionId, TenantId, Timestamp};

/// Requests of the log that are told unless more are asked for, and those that are told at most.
const LOGGED: usize = 100;
const LOGGED_MAX: usize = 1_000;

#[derive(Clone)]
struct Traffic {
    analytics: Arc<Analytics>,
    clock: SharedClock,
}

impl FromRef<Parts> for Traffic {
    fn from_ref(parts: &Parts) -> Self {
        Self { analytics: parts.analytics.clone(), clock: parts.clock.clone() }
    }
}

impl FromRef<admin::Parts> for Traffic {
    fn from_ref(parts: &admin::Parts) -> Self {
        Self { analytics: parts.analytics.clone(), clock: parts.clock.clone() }
    }
}

const FIGURES: &str = "Requests, errors, latencies and who asks most, over a time.";
const NOTES: &str = "Routes whose errors or latency left their band.";
const LOG: &str = "The latest requests that were logged.";

pub(crate) fn routes() -> ApiRouter<Parts> {
    ApiRouter::new()
        .api_route("/analytics/traffic", get_with(of_tenant, told("readTraffic", FIGURES, &[])))
        .api_route("/analytics/notes", get_with(notes_of_tenant, told("readNotes", NOTES, &[])))
        .api_route("/analytics/log", get_with(log_of_tenant, told("readLog", LOG, &[])))
}

/// As [`routes`], for the operator: over all tenants.
pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    ApiRouter::new()
        .api_route("/analytics/traffic", get_with(of_all, told("readTraffic", FIGURES, &[])))
        .api_route("/analytics/notes", get_with(notes_of_all, told("readNotes", NOTES, &[])))
        .api_route("/analytics/log", get_with(log_of_all, told("readLog", LOG, &[])))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The last `1m`, `5m`, `1h`, `6h`, `24h` or `7d`; `1h`, unless it is said.
    #[schemars(extend("enum" = ["1m", "5m", "1h", "6h", "24h", "7d"]))]
    range: Option<String>,
    /// In place of a range: since this moment, in milliseconds since 1970 UTC or as RFC 3339.
    from: Option<String>,
    /// Until this moment; now, unless it is said.
    to: Option<String>,
    /// For the operator: of one tenant.
    tenant: Option<TenantId>,
    /// Of one user, agent or service.
    user: Option<PrincipalId>,
    /// Of one session.
    #[schemars(with = "Option<SessionId>")]
    session: Option<String>,
    /// How many of those that ask most.
    #[schemars(range(min = 1, max = 100))]
    top: Option<usize>,
    /// By what they are ranked: `requests`, `errors`, `limited` or `bytes`.
    #[schemars(extend("enum" = ["requests", "errors", "limited", "bytes"]))]
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
) -> Answer<Json<Report>> {
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
    Ok(Json(traffic.analytics.report(&ask, now).await))
}

async fn of_all(
    State(traffic): State<Traffic>,
    Wanted(asked): Wanted<Asked>,
) -> Answer<Json<Report>> {
    let now = traffic.clock.now();
    let ask = Ask { naming: Naming::Shown, ..asked.ask(now)? };
    Ok(Json(traffic.analytics.report(&ask, now).await))
}

/// What was out of the ordinary.
#[derive(Serialize, JsonSchema)]
struct Notes {
    notes: Vec<Note>,
}

async fn notes_of_tenant(State(traffic): State<Traffic>, caller: Caller) -> Answer<Json<Notes>> {
    let notes = traffic.analytics.notes(Some(&caller.tenant), traffic.clock.now()).await;
    Ok(Json(Notes { notes }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NotesAsked {
    /// Of one tenant.
    tenant: Option<TenantId>,
}

async fn notes_of_all(
    State(traffic): State<Traffic>,
    Wanted(asked): Wanted<NotesAsked>,
) -> Answer<Json<Notes>> {
    let notes = traffic.analytics.notes(asked.tenant.as_ref(), traffic.clock.now()).await;
    Ok(Json(Notes { notes }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogAsked {
    /// For the operator: of one tenant.
    tenant: Option<TenantId>,
    /// Of this route.
    route: Option<String>,
    /// To this service.
    service: Option<String>,
    /// At least this status.
    status: Option<u16>,
    /// At least so long.
    #[schemars(with = "Option<types::duration::Text>")]
    slower: Option<String>,
    /// Of this user, agent or service.
    user: Option<PrincipalId>,
    /// Of this session.
    #[schemars(with = "Option<SessionId>")]
    session: Option<String>,
    /// With this in its trace.
    trace: Option<String>,
    /// Since this moment, in milliseconds since 1970.
    since: Option<u64>,
    /// So many at most; 100, unless it is said.
    #[schemars(range(min = 1, max = 1_000))]
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
) -> Answer<Json<Logged>> {
    caller.speaks_for_tenant()?;
    if asked.tenant.is_some() {
        return refuse(Code::BadRequest, "`tenant` is always the caller's own");
    }
    let filter = Filter { tenant: Some(caller.tenant.clone()), ..asked.filter()? };
    Ok(Json(traffic.analytics.logged(&filter)))
}

async fn log_of_all(
    State(traffic): State<Traffic>,
    Wanted(asked): Wanted<LogAsked>,
) -> Answer<Json<Logged>> {
    Ok(Json(traffic.analytics.logged(&asked.filter()?)))
}
