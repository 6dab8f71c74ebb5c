//! The messages of OTLP that we say (opentelemetry-proto 1.x, `metrics/v1/metrics.proto`).

use bytes::Bytes;
use prost::{Message, Oneof};
use std::time::Duration;
use traffic_cop::analytics::{Figures, Histogram, InstanceFigures, RouteName};
use types::Timestamp;

/// Upper bounds of the latency buckets, in milliseconds, as in `/metrics`.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(oneof = "Data", tags = "7, 9")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Data {
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histograms),
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct NumberPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    /// The member `as_int` of the choice `value`.
    #[prost(sfixed64, optional, tag = "6")]
    as_int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Histograms {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<HistogramPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    /// The member `string_value` of the choice `value`.
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

fn said(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { string_value: Some(value.to_owned()) });
    KeyValue { key: key.to_owned(), value }
}

/// From when to when, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times(u64, u64);

fn sum(name: &str, description: &str, unit: &str, data_points: Vec<NumberPoint>) -> Metric {
    let data = Sum { data_points, aggregation_temporality: CUMULATIVE, is_monotonic: true };
    Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(Data::Sum(data)),
    }
}

fn number(count: u64, attributes: Vec<KeyValue>, times: Times) -> NumberPoint {
    NumberPoint {
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        as_int: Some(i64::try_from(count).unwrap_or(i64::MAX)),
        attributes,
    }
}

fn histogram(latency: &Histogram, attributes: Vec<KeyValue>, times: Times) -> HistogramPoint {
    let mut below = 0;
    let mut bucket_counts: Vec<u64> = BUCKETS_MS
        .iter()
        .map(|bound| {
            let at_most = latency.at_most(Duration::from_millis(*bound));
            at_most - std::mem::replace(&mut below, at_most)
        })
        .collect();
    bucket_counts.push(latency.count() - below);
    HistogramPoint {
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: latency.count(),
        sum: Some(latency.sum().as_secs_f64()),
        bucket_counts,
        explicit_bounds: BUCKETS_MS.iter().map(|bound| *bound as f64 / 1000.0).collect(),
        attributes,
    }
}

/// What a counter counts, its description and unit, and where it is read.
type Counter = (&'static str, &'static str, &'static str, fn(&Figures) -> u64);

const OF_ROUTES: [Counter; 6] = [
    ("crosstown.requests", "Requests answered.", "{request}", |f| f.usage.requests),
    ("crosstown.client_errors", "Answers with status 400 to 499.", "{request}", |f| {
        f.usage.client_errors
    }),
    ("crosstown.server_errors", "Answers with status 500 and above.", "{request}", |f| {
        f.usage.server_errors
    }),
    ("crosstown.limited", "Requests refused by a rate limit.", "{request}", |f| f.usage.limited),
    ("crosstown.request.body", "Bytes of request bodies.", "By", |f| f.usage.bytes_in),
    ("crosstown.response.body", "Bytes of answers' bodies.", "By", |f| f.usage.bytes_out),
];

/// Everything since the start, as a request to a receiver.
pub(super) fn export(
    node: &str,
    routes: &[(RouteName, Figures, Histogram)],
    instances: &[InstanceFigures],
    since: Timestamp,
    now: Timestamp,
) -> Bytes {
    let times = Times(since.0 * 1_000_000, now.0 * 1_000_000);
    let of_route = |name: &RouteName| {
        let (route, service) =
            (said("crosstown.route", &name.route), said("crosstown.service", &name.service));
        let realm = name.realm.as_ref().map(|realm| said("crosstown.realm", realm));
        [route, service].into_iter().chain(realm).collect::<Vec<_>>()
    };
    let mut metrics: Vec<Metric> = OF_ROUTES
        .iter()
        .map(|(name, description, unit, read)| {
            let points = routes
                .iter()
                .map(|(route, figures, _)| number(read(figures), of_route(route), times));
            sum(name, description, unit, points.collect())
        })
        .collect();
    let of_instances = instances.iter().map(|of| {
        let attributes =
            vec![said("crosstown.service", &of.service), said("crosstown.instance", &of.instance)];
        number(of.figures.usage.requests, attributes, times)
    });
    metrics.push(sum(
        "crosstown.instance.requests",
        "Requests that the instance answered.",
        "{request}",
        of_instances.collect(),
    ));
    let latencies =
        routes.iter().map(|(route, _, latency)| histogram(latency, of_route(route), times));
    metrics.push(Metric {
        name: "http.server.request.duration".to_owned(),
        description: "From the request's head to the end of the answer.".to_owned(),
        unit: "s".to_owned(),
        data: Some(Data::Histogram(Histograms {
            data_points: latencies.collect(),
            aggregation_temporality: CUMULATIVE,
        })),
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let scope = Some(Scope { name: "crosstown".to_owned(), version });
    let attributes = vec![said("service.name", "crosstown"), said("service.instance.id", node)];
    let resource = Some(Resource { attributes });
    let scope_metrics = vec![ScopeMetrics { scope, metrics }];
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics }];
    Export { resource_metrics }.encode_to_vec().into()
}
