//! The node's figures in Prometheus' text format, version 0.0.4.

use crate::{
    admin::{Parts, TlsView, Vitals},
    cache, cores, realms, services,
};
use std::{
    fmt::{Display, Write},
    time::Duration,
};
use store_guard::{Condition, Report};
use traffic_cop::{
    analytics::{Figures, Histogram, Range, RouteName},
    limit::Limits,
    totals::Passed,
};

/// Upper bounds of the latency buckets, in milliseconds.
const BUCKETS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

pub(crate) fn render(parts: &Parts) -> String {
    let mut text = String::new();
    let routes = parts.analytics.since_start();
    counters(&mut text, &routes);
    latencies(&mut text, &routes);
    instances(&mut text, parts);
    let Vitals {
        connections,
        sockets,
        closings,
        followed,
        live,
        passed,
        in_flight,
        draining,
        cores,
        tls,
        exports,
    } = (parts.vitals)();
    gauge(&mut text, "crosstown_connections", "Open client connections.", connections);
    gauge(&mut text, "crosstown_sockets", "Open client-protocol sockets.", sockets);
    closed(&mut text, &closings);
    let (channels, subscriptions) = followed;
    gauge(&mut text, "crosstown_channels", "Channels that sockets follow.", channels);
    let help = "Subscriptions of sockets to channels.";
    gauge(&mut text, "crosstown_subscriptions", help, subscriptions);
    through_sockets(&mut text, &passed);
    for (what, (count, bytes)) in [("documents", live.documents), ("channels", live.channels)] {
        let help = format!("Live {what} in this node's memory.");
        gauge(&mut text, &format!("crosstown_live_{what}"), &help, count);
        gauge(&mut text, &format!("crosstown_live_{what}_bytes"), "Their bytes.", bytes);
    }
    gauge(&mut text, "crosstown_requests_in_flight", "Requests being answered.", in_flight);
    gauge(&mut text, "crosstown_draining", "1 while the node shuts down.", usize::from(draining));
    cores::metrics(&mut text, &cores);
    if let Some(tls) = tls {
        tls_of_the_edge(&mut text, &tls);
    }
    if let Some((told, lost)) = exports {
        for (what, help, count) in [
            ("told", "How often the receiver of telemetry was told.", told),
            ("lost", "How often what it should have been told was given up.", lost),
        ] {
            let name = format!("crosstown_telemetry_{what}_total");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
        }
    }
    let buckets = parts.limits.bucket_count();
    gauge(&mut text, "crosstown_limit_buckets", "Rate-limit buckets in memory.", buckets);
    services::metrics(&mut text, &(parts.services)().guards);
    cache::metrics(&mut text, (parts.cache.see)());
    realms::metrics(&mut text, &parts.realms.broken());
    shadows(&mut text, parts);
    costs(&mut text, &parts.limits);
    shared_limits(&mut text, &parts.limits);
    engines(&mut text, parts);
    text
}

fn tls_of_the_edge(text: &mut String, tls: &TlsView) {
    let help = "1 while files of TLS as they are now cannot be used.";
    gauge(text, "crosstown_tls_problem", help, usize::from(tls.problem.is_some()));
    for (name, help, count) in [
        ("crosstown_tls_renewals_total", "How often files of TLS were taken anew.", tls.renewals),
        ("crosstown_tls_handshakes_failed_total", "Handshakes that have failed.", tls.failed),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
    }
}

/// How each engine is: a store by its tier, and what passes between nodes as `fanout`.
fn engines(text: &mut String, parts: &Parts) {
    let stores = parts.stores.iter().map(|(tier, store)| (*tier, store.report()));
    let live = parts.live.iter().map(|live| ("fanout", live.report()));
    let reports: Vec<(&str, Report)> = stores.chain(live).collect();
    let name = "crosstown_store_condition";
    let _ = writeln!(text, "# HELP {name} 1 for the condition that the engine is in.");
    let _ = writeln!(text, "# TYPE {name} gauge");
    for (engine, report) in &reports {
        for condition in Condition::ALL {
            let (is, condition) = (u8::from(report.condition == condition), condition.as_str());
            let labels = format!("store=\"{engine}\",condition=\"{condition}\"");
            let _ = writeln!(text, "{name}{{{labels}}} {is}");
        }
    }
    let name = "crosstown_store_calls_total";
    let _ = writeln!(text, "# HELP {name} Calls of an engine, by what became of them.");
    let _ = writeln!(text, "# TYPE {name} counter");
    for (engine, report) in &reports {
        for (outcome, count) in [
            ("answered", report.answered),
            ("unanswered", report.unanswered),
            ("refused", report.refused),
        ] {
            let _ = writeln!(text, "{name}{{store=\"{engine}\",outcome=\"{outcome}\"}} {count}");
        }
    }
    let name = "crosstown_store_latency_seconds";
    let _ = writeln!(text, "# HELP {name} How long answers take, smoothed.\n# TYPE {name} gauge");
    for (engine, report) in &reports {
        let _ = writeln!(text, "{name}{{store=\"{engine}\"}} {}", report.latency.as_secs_f64());
    }
    let (name, copies) = ("crosstown_callers_from_copies_total", parts.identity.from_copies());
    let help = "Credentials taken as they were known, since the store was away.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {copies}");
}

/// Limits that refuse nothing.
fn shadows(text: &mut String, parts: &Parts) {
    let name = "crosstown_limit_shadow_refused_total";
    let help = "Requests that a limit in shadow would have refused.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for report in parts.limits.shadows(Range::OneMinute, parts.clock.elapsed()) {
        let _ = writeln!(text, "{name}{{limit=\"{}\"}} {}", report.limit, report.since_start);
    }
}

/// Answers that should have told what they cost.
fn costs(text: &mut String, limits: &Limits) {
    let name = "crosstown_limit_cost_malformed_total";
    let help = "Answers whose `cost_header` was no whole number.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (limit, count) in limits.malformed() {
        let _ = writeln!(text, "{name}{{limit=\"{limit}\"}} {count}");
    }
}

/// Limits that nodes count together, and quotas.
fn shared_limits(text: &mut String, limits: &Limits) {
    let (name, reserves) = ("crosstown_limit_reserves_total", limits.reserves());
    let help = "Commits that reserved parts of quotas, or gave them back.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {reserves}");
    let name = "crosstown_limit_excess_max";
    let help = "Requests that may be admitted beyond the limit when a node or its store is lost.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (limit, excess) in limits.excess_max() {
        let _ = writeln!(text, "{name}{{limit=\"{limit}\"}} {excess}");
    }
    let Some(figures) = limits.shared() else { return };
    let name = "crosstown_limit_places_owned";
    gauge(text, name, "Parts of the shared limits that this node counts.", figures.owned);
    for (name, help, count) in [
        ("questions", "Questions to nodes that count shared limits.", figures.questions),
        ("granted", "Requests that other nodes granted to this one.", figures.granted),
        ("away", "Requests decided while whoever counts them was away.", figures.away),
        ("saves", "Commits that saved what this node counted.", figures.saves),
    ] {
        let name = format!("crosstown_limit_{name}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}");
    }
}

fn through_sockets(text: &mut String, passed: &Passed) {
    for (what, help, [come, go]) in [
        (
            "messages",
            "Messages of clients, and replies and pushes to them.",
            [passed.messages_in, passed.messages_out],
        ),
        ("bytes", "Their bytes.", [passed.bytes_in, passed.bytes_out]),
    ] {
        let name = format!("crosstown_socket_{what}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        let _ = writeln!(text, "{name}{{direction=\"in\"}} {come}");
        let _ = writeln!(text, "{name}{{direction=\"out\"}} {go}");
    }
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl Display) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}

fn closed(text: &mut String, closings: &[(u16, &'static str, u64)]) {
    let name = "crosstown_sockets_closed_total";
    let help = "Client-protocol sockets that have ended, by close code; 0: closed by the client.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (code, why, count) in closings {
        let _ = writeln!(text, "{name}{{code=\"{code}\",reason=\"{why}\"}} {count}");
    }
}

type Route = (RouteName, Figures, Histogram);
/// What a counter counts, its help, and where it is read.
type Counter = (&'static str, &'static str, fn(&Figures) -> u64);

fn counters(text: &mut String, routes: &[Route]) {
    let counters: [Counter; 6] = [
        ("requests", "Requests answered.", |f| f.usage.requests),
        ("client_errors", "Answers with status 400 to 499.", |f| f.usage.client_errors),
        ("server_errors", "Answers with status 500 and above.", |f| f.usage.server_errors),
        ("limited", "Requests refused by a rate limit.", |f| f.usage.limited),
        ("request_body_bytes", "Bytes of request bodies.", |f| f.usage.bytes_in),
        ("response_body_bytes", "Bytes of answers' bodies.", |f| f.usage.bytes_out),
    ];
    for (what, help, read) in counters {
        let name = format!("crosstown_{what}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for (route, figures, _) in routes {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(route), read(figures));
        }
    }
}

fn latencies(text: &mut String, routes: &[Route]) {
    let name = "crosstown_request_duration_seconds";
    let help = "From the request's head to the end of the answer.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (route, _, latency) in routes {
        let labels = labels(route);
        for bound in BUCKETS_MS {
            let count = latency.at_most(Duration::from_millis(bound));
            let le = bound as f64 / 1000.0;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {count}");
        }
        let (count, sum) = (latency.count(), latency.sum().as_secs_f64());
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }
}

/// What instances have answered, and what could not be kept of it all. There are at most a thousand
/// of them.
fn instances(text: &mut String, parts: &Parts) {
    let instances = parts.analytics.instances_since_start();
    let counters: [Counter; 2] = [
        ("instance_requests", "Requests that the instance answered.", |f| f.usage.requests),
        ("instance_server_errors", "Of them with status 500 and above.", |f| f.usage.server_errors),
    ];
    for (what, help, read) in counters {
        let name = format!("crosstown_{what}_total");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        for of in &instances {
            let (service, instance) = (escaped(&of.service), escaped(&of.instance));
            let labels = format!("service=\"{service}\",instance=\"{instance}\"");
            let _ = writeln!(text, "{name}{{{labels}}} {}", read(&of.figures));
        }
    }
    let (name, lost) = ("crosstown_analytics_lost_total", parts.analytics.lost());
    let help = "Requests whose figures could neither be written nor be held until they could.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {lost}");
}

fn labels(route: &RouteName) -> String {
    let labels =
        format!("route=\"{}\",service=\"{}\"", escaped(&route.route), escaped(&route.service));
    match &route.realm {
        Some(realm) => format!("{labels},realm=\"{}\"", escaped(realm)),
        None => labels,
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
