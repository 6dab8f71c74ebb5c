//! The recent past, in seconds and in minutes.

use crate::analytics::{Counts, Label, RouteId, RouteName, packed::Packed};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};
use types::{TenantId, Timestamp};

const SECONDS: usize = 300;
const MINUTES: usize = 61;

pub(super) type Slot = HashMap<Label, Counts, ahash::RandomState>;

/// One ring of seconds, one of minutes.
#[derive(Debug, Default)]
pub(super) struct Rings {
    open: Slot,
    seconds: VecDeque<(Timestamp, Span)>,
    minutes: VecDeque<(Timestamp, Span)>,
}

/// A second or a minute.
#[derive(Debug)]
enum Span {
    Open(Slot),
    Over(Packed),
}

impl Span {
    fn close(&mut self) {
        if let Self::Open(slot) = self {
            *self = Self::Over(Packed::of(slot));
        }
    }

    fn add(&mut self, more: &Slot) {
        let add = |slot: &mut Slot| {
            for (label, counts) in more {
                slot.entry(label.clone()).or_default().add(counts);
            }
        };
        match self {
            Self::Open(slot) => add(slot),
            Self::Over(packed) => {
                let mut slot = packed.unpacked();
                add(&mut slot);
                *packed = Packed::of(&slot);
            }
        }
    }

    fn for_each(&self, mut with: impl FnMut(&Label, &Counts)) {
        match self {
            Self::Open(slot) => slot.iter().for_each(|(label, counts)| with(label, counts)),
            Self::Over(packed) => packed.lines().for_each(|(label, counts)| with(label, &counts)),
        }
    }
}

impl Rings {
    pub(super) fn add(&mut self, label: Label, counts: &Counts) {
        self.open.entry(label).or_default().add(counts);
    }

    /// Closes what was counted since the last tick as the second of `now`, and answers it.
    pub(super) fn tick(&mut self, now: Timestamp) -> Slot {
        let slot = std::mem::take(&mut self.open);
        self.add_second(now, &slot);
        slot
    }

    /// Adds what was counted in the second of `at`.
    pub(super) fn add_second(&mut self, at: Timestamp, slot: &Slot) {
        put(&mut self.minutes, Timestamp(at.0 / 60_000 * 60_000), MINUTES, slot);
        put(&mut self.seconds, Timestamp(at.0 / 1000 * 1000), SECONDS, slot);
    }
}

/// Adds to the span of `start`, which need not be the last one: clocks differ and go back.
fn put(ring: &mut VecDeque<(Timestamp, Span)>, start: Timestamp, keep: usize, slot: &Slot) {
    if slot.is_empty() {
        return;
    }
    let at = ring.partition_point(|(known, _)| *known < start);
    if ring.get(at).is_none_or(|(known, _)| *known != start) {
        ring.iter_mut().for_each(|(_, span)| span.close());
        ring.insert(at, (start, Span::Open(Slot::default())));
    }
    if let Some((_, span)) = ring.get_mut(at) {
        span.add(slot);
    }
    while ring.len() > keep {
        ring.pop_front();
    }
}

/// How far back a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Sixty seconds, by the second.
    OneMinute,
    /// Three hundred seconds, by the second.
    FiveMinutes,
    /// Sixty minutes, by the minute.
    OneHour,
}

impl Range {
    /// Reads `1m`, `5m` or `1h`.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1m" => Ok(Self::OneMinute),
            "5m" => Ok(Self::FiveMinutes),
            "1h" => Ok(Self::OneHour),
            other => Err(format!("`{other}` is not a range; use `1m`, `5m` or `1h`")),
        }
    }

    /// The range as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneMinute => "1m",
            Self::FiveMinutes => "5m",
            Self::OneHour => "1h",
        }
    }

    fn millis(self) -> u64 {
        match self {
            Self::OneMinute => 60_000,
            Self::FiveMinutes => 300_000,
            Self::OneHour => 3_600_000,
        }
    }
}

/// What was counted. Latencies in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Of them with a status of 400 to 499, refusals by a limit included.
    pub client_errors: u64,
    /// Of them with a status of 500 and above.
    pub server_errors: u64,
    /// Of them refused by a limit (429).
    pub limited: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// Half were at most this slow; none if there were no requests.
    pub latency_ms_p50: Option<f64>,
    /// 95 of 100 were at most this slow.
    pub latency_ms_p95: Option<f64>,
    /// 99 of 100 were at most this slow.
    pub latency_ms_p99: Option<f64>,
}

impl Figures {
    pub(super) fn of(counts: &Counts) -> Self {
        let ms = |quantile| counts.latency.quantile(quantile).map(|d| d.as_secs_f64() * 1000.0);
        Self {
            requests: counts.requests(),
            client_errors: counts.by_class[4],
            server_errors: counts.by_class[5],
            limited: counts.limited,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            latency_ms_p50: ms(0.5),
            latency_ms_p95: ms(0.95),
            latency_ms_p99: ms(0.99),
        }
    }
}

/// A route's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteFigures {
    /// The route.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The figures of a second or a minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it began, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The traffic of a range.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The range asked for.
    pub range: &'static str,
    /// When it begins, in milliseconds since 1970 UTC.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// Everything together.
    pub total: Figures,
    /// By route.
    pub routes: Vec<RouteFigures>,
    /// By service.
    pub services: BTreeMap<Arc<str>, Figures>,
    /// By tenant; only in the operator's report over all tenants. `(other)` stands for requests
    /// without a tenant and for tenants beyond the bound.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, Figures>,
    /// By second or minute; those without traffic are missing.
    pub series: Vec<Point>,
}

pub(super) fn report(
    rings: &Rings,
    names: &[RouteName],
    range: Range,
    now: Timestamp,
    tenant: Option<&TenantId>,
) -> Report {
    let from = Timestamp(now.0.saturating_sub(range.millis()));
    let ring = match range {
        Range::OneMinute | Range::FiveMinutes => &rings.seconds,
        Range::OneHour => &rings.minutes,
    };
    let mut total = Counts::default();
    let mut routes: BTreeMap<RouteId, Counts> = BTreeMap::new();
    let mut services: BTreeMap<Arc<str>, Counts> = BTreeMap::new();
    let mut tenants: BTreeMap<String, Counts> = BTreeMap::new();
    let mut series = Vec::new();
    for (at, span) in ring.iter().filter(|(at, _)| *at >= from) {
        let mut point = Counts::default();
        span.for_each(|Label { route, tenant: owner }, counts| {
            if tenant.is_some() && owner.as_ref() != tenant {
                return;
            }
            point.add(counts);
            routes.entry(*route).or_default().add(counts);
            let service = names[route.0 as usize].service.clone();
            services.entry(service).or_default().add(counts);
            if tenant.is_none() {
                let owner = owner.as_ref().map_or("(other)", TenantId::as_str);
                tenants.entry(owner.to_owned()).or_default().add(counts);
            }
        });
        if point.requests() > 0 {
            total.add(&point);
            series.push(Point { at: *at, figures: Figures::of(&point) });
        }
    }
    let named = |(id, counts): (RouteId, Counts)| {
        let RouteName { route, service } = names[id.0 as usize].clone();
        RouteFigures { route, service, figures: Figures::of(&counts) }
    };
    Report {
        range: range.as_str(),
        from,
        to: now,
        total: Figures::of(&total),
        routes: routes.into_iter().map(named).collect(),
        services: services.into_iter().map(|(name, c)| (name, Figures::of(&c))).collect(),
        tenants: tenants.into_iter().map(|(name, c)| (name, Figures::of(&c))).collect(),
        series,
    }
}
