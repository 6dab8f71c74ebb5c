//! Spans in little room, as they are stored and as those that are over stay in memory: a message
//! of Protocol Buffers in which each name stands once.

use crate::analytics::{
    Histogram,
    distinct::Distinct,
    figures::{Counts, Usage},
    names::{Names, RouteId},
    period::Width,
    span::{Consumer, Endpoint, InstanceName, KINDS, Span},
    top::{Counter, Top},
};
use ahash::RandomState;
use bytes::Bytes;
use prost::Message;
use std::{collections::HashMap, hash::Hash, sync::Arc};
use types::{Pillar, PrincipalId, SessionId, TenantId};

/// Bytes of a record's lines of routes; what is beyond counts as one route, which is told as
/// `(other)`.
const ROUTES_BYTES_MAX: usize = 400 * 1024;
/// Bytes of the sets of users; those of further tenants are left out.
const USERS_BYTES_MAX: usize = 128 * 1024;
const OTHER: &str = "(other)";

#[derive(Clone, PartialEq, Message)]
struct Record {
    /// What lines name by number; the first is nothing.
    #[prost(string, repeated, tag = "1")]
    texts: Vec<String>,
    /// Route, service, realm, tenant.
    #[prost(message, repeated, tag = "2")]
    routes: Vec<Line>,
    /// Service, instance.
    #[prost(message, repeated, tag = "3")]
    instances: Vec<Line>,
    /// Tenant, pillar.
    #[prost(message, repeated, tag = "4")]
    pillars: Vec<Line>,
    /// Tenant, principal; the kind is the line's own.
    #[prost(message, optional, tag = "5")]
    consumers: Option<Summary>,
    /// Tenant, session.
    #[prost(message, optional, tag = "6")]
    sessions: Option<Summary>,
    /// Route, service, realm, tenant, method, pattern.
    #[prost(message, optional, tag = "7")]
    endpoints: Option<Summary>,
    /// Of all tenants first.
    #[prost(message, repeated, tag = "8")]
    users: Vec<Set>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint32, repeated, tag = "1")]
    names: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    usage: Vec<u64>,
    #[prost(uint64, tag = "3")]
    sum_micros: u64,
    /// Buckets that are not empty, and their counts.
    #[prost(uint32, repeated, tag = "4")]
    buckets: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    counts: Vec<u64>,
    #[prost(uint64, tag = "6")]
    missed_max: u64,
    #[prost(uint32, tag = "7")]
    kind: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    lines: Vec<Line>,
    #[prost(uint64, tag = "2")]
    floor: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Set {
    /// None: of all.
    #[prost(uint32, tag = "1")]
    tenant: u32,
    #[prost(fixed64, repeated, tag = "2")]
    few: Vec<u64>,
    #[prost(bytes = "vec", tag = "3")]
    many: Vec<u8>,
}

/// Numbers for names.
struct Texts {
    numbers: HashMap<Arc<str>, u32, RandomState>,
    texts: Vec<String>,
    bytes: usize,
}

impl Texts {
    fn new() -> Self {
        Self { numbers: HashMap::default(), texts: vec![String::new()], bytes: 0 }
    }

    fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.bytes += text.len();
        self.numbers.insert(text.into(), number);
        number
    }

    fn route(&mut self, names: &Names, route: RouteId) -> Vec<u32> {
        let name = names.name(route);
        let realm = name.realm.as_deref().unwrap_or_default();
        vec![self.number(&name.route), self.number(&name.service), self.number(realm)]
    }
}

fn line(names: Vec<u32>, counts: &Counts) -> Line {
    let (buckets, times) =
        counts.latency.used().map(|(bucket, times)| (bucket as u32, times)).unzip();
    Line {
        names,
        usage: counts.usage.numbers().to_vec(),
        sum_micros: counts.latency.sum_micros(),
        buckets,
        counts: times,
        missed_max: 0,
        kind: 0,
    }
}

/// The counters of those who used most, at most `max`.
fn summary<K: Eq + Hash + Ord + Clone>(
    top: &Top<K>,
    max: usize,
    mut named: impl FnMut(&K) -> (Vec<u32>, u8),
) -> Option<Summary> {
    if top.is_empty() {
        return None;
    }
    let mut top = top.clone();
    top.keep(max);
    let lines = top.iter().map(|(key, counter)| {
        let (names, kind) = named(key);
        Line {
            names,
            usage: counter.usage.numbers().to_vec(),
            missed_max: counter.missed_max,
            kind: kind.into(),
            ..Line::default()
        }
    });
    Some(Summary { lines: lines.collect(), floor: top.floor() })
}

fn set(tenant: u32, users: &Distinct) -> Set {
    match users {
        Distinct::Few(hashes) => Set { tenant, few: hashes.clone(), many: Vec::new() },
        Distinct::Many(registers) => Set { tenant, few: Vec::new(), many: registers.to_vec() },
    }
}

/// A span as it is stored.
pub(super) fn encode(span: &Span, names: &Names, width: &Width) -> Bytes {
    let mut texts = Texts::new();
    let mut busiest: Vec<_> = span.routes.iter().collect();
    busiest.sort_unstable_by_key(|(_, counts)| std::cmp::Reverse(counts.usage.requests));
    let (mut routes, mut bytes, mut others) = (Vec::new(), 0, Counts::default());
    for ((route, tenant), counts) in busiest {
        if bytes + texts.bytes > ROUTES_BYTES_MAX {
            others.add(counts);
            continue;
        }
        let mut named = texts.route(names, *route);
        named.push(texts.number(tenant.as_ref().map_or("", TenantId::as_str)));
        let line = line(named, counts);
        bytes += line.encoded_len();
        routes.push(line);
    }
    if others.usage.requests > 0 {
        let other = texts.number(OTHER);
        routes.push(line(vec![other, other, 0, 0], &others));
    }
    let instances = span.instances.iter().map(|(name, counts)| {
        line(vec![texts.number(&name.service), texts.number(&name.instance)], counts)
    });
    let instances = instances.collect();
    let pillars = span.pillars.iter().map(|((tenant, pillar), counts)| {
        line(vec![texts.number(tenant.as_str()), texts.number(pillar.as_str())], counts)
    });
    let pillars = pillars.collect();
    let consumers = summary(&span.consumers, width.consumers, |of| {
        (vec![texts.number(of.tenant.as_str()), texts.number(of.id.as_str())], of.kind)
    });
    let sessions = summary(&span.sessions, width.consumers, |(tenant, session)| {
        (vec![texts.number(tenant.as_str()), texts.number(&session.to_string())], 0)
    });
    let endpoints = summary(&span.endpoints, width.consumers, |of| {
        let mut named = texts.route(names, of.route);
        named.push(texts.number(of.tenant.as_ref().map_or("", TenantId::as_str)));
        named.push(texts.number(&of.method));
        named.push(texts.number(&of.pattern));
        (named, 0)
    });
    let mut users = vec![set(0, &span.users.all)];
    let mut bytes = 0;
    for (tenant, of_tenant) in &span.users.by_tenant {
        let set = set(texts.number(tenant.as_str()), of_tenant);
        bytes += set.encoded_len();
        if bytes > USERS_BYTES_MAX {
            break;
        }
        users.push(set);
    }
    let texts = texts.texts;
    Record { texts, routes, instances, pillars, consumers, sessions, endpoints, users }
        .encode_to_vec()
        .into()
}

/// What a line names.
struct Named<'a> {
    texts: &'a [String],
    names: &'a [u32],
}

impl<'a> Named<'a> {
    /// The name at this place; none if there is nothing.
    fn get(&self, at: usize) -> Option<&'a str> {
        let text = self.texts.get(*self.names.get(at)? as usize)?;
        (!text.is_empty()).then_some(text)
    }

    fn tenant(&self, at: usize) -> Option<TenantId> {
        TenantId::new(self.get(at)?).ok()
    }

    fn route(&self, names: &Names) -> Option<RouteId> {
        Some(names.number(self.get(0)?, self.get(1)?, self.get(2)))
    }
}

impl Line {
    fn named<'a>(&'a self, texts: &'a [String]) -> Named<'a> {
        Named { texts, names: &self.names }
    }

    fn read(&self) -> Counts {
        let pairs = self.buckets.iter().zip(&self.counts);
        let used = pairs.map(|(bucket, times)| (*bucket as usize, *times));
        let latency = Histogram::of_used(used, self.sum_micros);
        Counts { usage: Usage::of_numbers(&self.usage), latency }
    }

    fn counter(&self) -> Counter {
        Counter { usage: Usage::of_numbers(&self.usage), missed_max: self.missed_max }
    }
}

fn top<K: Eq + Hash + Ord + Clone>(
    summary: Option<&Summary>,
    named: impl Fn(&Line) -> Option<K>,
) -> Top<K> {
    let Some(summary) = summary else { return Top::default() };
    let lines = summary.lines.iter();
    Top::of(lines.filter_map(|line| Some((named(line)?, line.counter()))), summary.floor)
}

/// The span that was stored; none if it is not one. A line that cannot be read is left out.
pub(super) fn decode(bytes: &[u8], names: &Names) -> Option<Span> {
    let record = Record::decode(bytes).ok()?;
    let texts = &record.texts;
    let mut span = Span::default();
    for line in &record.routes {
        let named = line.named(texts);
        if let Some(route) = named.route(names) {
            span.add_route(route, named.tenant(3), &line.read());
        }
    }
    for line in &record.instances {
        let named = line.named(texts);
        if let (Some(service), Some(instance)) = (named.get(0), named.get(1)) {
            let name = InstanceName { service: service.into(), instance: instance.into() };
            span.add_instance(name, &line.read());
        }
    }
    for line in &record.pillars {
        let named = line.named(texts);
        let pillar = named.get(1).and_then(|pillar| Pillar::new(pillar).ok());
        if let (Some(tenant), Some(pillar)) = (named.tenant(0), pillar) {
            span.add_pillar(tenant, pillar, &line.read());
        }
    }
    span.consumers = top(record.consumers.as_ref(), |line| {
        let named = line.named(texts);
        let id = PrincipalId::new(named.get(1)?).ok()?;
        let kind = KINDS.get(line.kind as usize)?;
        Some(Consumer::new(&named.tenant(0)?, *kind, &id))
    });
    span.sessions = top(record.sessions.as_ref(), |line| {
        let named = line.named(texts);
        Some((named.tenant(0)?, named.get(1)?.parse::<SessionId>().ok()?))
    });
    span.endpoints = top(record.endpoints.as_ref(), |line| {
        let named = line.named(texts);
        let (method, pattern) = (named.get(4)?.into(), named.get(5)?.into());
        Some(Endpoint { route: named.route(names)?, tenant: named.tenant(3), method, pattern })
    });
    for set in record.users {
        let users = match set.many.is_empty() {
            true => Distinct::of_hashes(set.few),
            false => Distinct::of_registers(set.many)?,
        };
        match texts.get(set.tenant as usize).filter(|text| !text.is_empty()) {
            None => span.users.all.merge(&users),
            Some(tenant) => {
                span.users.by_tenant.insert(TenantId::new(tenant).ok()?, users);
            }
        }
    }
    Some(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::period::MINUTE;
    use std::time::Duration;
    use types::PrincipalKind;

    #[test]
    fn nothing_is_lost_on_the_way_to_the_store_and_back() {
        let names = Names::default();
        let mut span = Span::default();
        let mut counts = Counts::default();
        for (millis, status) in [(1, 200), (1, 404), (70, 429), (3_600_000, 503)] {
            counts.add_one(&Usage::one(status, 3, 700), Duration::from_millis(millis));
        }
        let (acme, ann) = (TenantId::new("acme").unwrap(), PrincipalId::new("ann").unwrap());
        for (route, realm) in [("a", None), ("b", Some("solution"))] {
            let route = names.number(route, "s", realm);
            span.add_route(route, None, &counts);
            span.add_route(route, Some(acme.clone()), &counts);
            let (tenant, method) = (Some(acme.clone()), "GET".into());
            let endpoint = Endpoint { route, tenant, method, pattern: "/{id}".into() };
            span.endpoints.add(&endpoint, &counts.usage);
        }
        let instance = InstanceName { service: "s".into(), instance: "10.0.0.1:80".into() };
        span.add_instance(instance, &counts);
        span.add_pillar(acme.clone(), Pillar::new("content").unwrap(), &counts);
        for kind in KINDS {
            span.add_consumer(&Consumer::new(&acme, kind, &ann), &counts.usage);
        }
        span.sessions.add(&(acme.clone(), SessionId::new(7, [1; 16])), &counts.usage);
        for number in 0..300 {
            let id = PrincipalId::new(&format!("u{number}")).unwrap();
            let eve = TenantId::new(&format!("t{}", number % 3)).unwrap();
            span.add_consumer(&Consumer::new(&eve, PrincipalKind::User, &id), &counts.usage);
        }
        let encoded = encode(&span, &names, &MINUTE);
        let (there, back) = (Names::default(), decode(&encoded, &names).unwrap());
        assert_eq!(back, span);
        // Another node may have given the routes other numbers.
        there.number("x", "y", None);
        let told = decode(&encoded, &there).unwrap();
        let route = there.number("b", "s", Some("solution"));
        assert_eq!(told.routes[&(route, None)], counts);
        assert!(decode(&encoded[..encoded.len() - 1], &names).is_none());
    }

    #[test]
    fn a_record_is_bounded_whatever_it_holds() {
        let names = Names::default();
        let mut span = Span::default();
        let mut counts = Counts::default();
        for power in 0..30 {
            counts.add_one(&Usage::one(200, 1 << 40, 1 << 40), Duration::from_micros(1 << power));
        }
        for number in 0..12_000 {
            span.add_route(
                names.number(&format!("route-{number}"), "service", None),
                None,
                &counts,
            );
        }
        for number in 0..40_000 {
            let id = PrincipalId::new(&format!("{number:0>128}")).unwrap();
            let tenant = TenantId::new(&format!("{:0>64}", number % 90)).unwrap();
            span.add_consumer(&Consumer::new(&tenant, PrincipalKind::User, &id), &counts.usage);
            let endpoint = Endpoint {
                route: names.number("route-0", "service", None),
                tenant: None,
                method: "GET".into(),
                pattern: format!("/{number:a>128}").into(),
            };
            span.endpoints.add(&endpoint, &counts.usage);
        }
        let encoded = encode(&span, &names, &MINUTE);
        assert!(encoded.len() < 900 * 1024, "{}", encoded.len());
        let back = decode(&encoded, &names).unwrap();
        let requests =
            |span: &Span| -> u64 { span.routes.values().map(|counts| counts.usage.requests).sum() };
        assert_eq!(requests(&back), requests(&span));
    }
}
