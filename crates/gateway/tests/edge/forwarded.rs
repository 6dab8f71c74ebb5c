//! What is believed of those who forward, and of nobody else.

use crate::support::{Edge, Origin, config, services};
use gateway::Config;
use std::sync::Arc;

/// A limit of one request for each address.
fn one_each() -> Vec<traffic_cop::limit::Rule> {
    let rule = "name = \"one\"\nper = \"ip\"\nrequests = 1\nperiod = \"1h\"\n";
    vec![toml::from_str(rule).unwrap()]
}

fn edge(config: Config, origin: &str) -> Edge {
    Edge::with(config, &services(&[origin]), one_each(), None, Arc::new(|_| Vec::new()))
}

fn trusting() -> Config {
    let networks = ["127.0.0.0/8", "10.0.0.0/8"];
    let trusted_proxies = networks.iter().map(|text| text.parse().unwrap()).collect();
    Config { trusted_proxies, ..config() }
}

fn ask(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{fields}\r\n")
}

#[tokio::test]
async fn what_a_client_says_of_itself_changes_nothing() {
    let origin = Origin::echo().await;
    let edge = edge(config(), &origin.address);
    let first = edge.ask(&ask("")).await;
    assert_eq!(first.status, 200);
    assert!(first.text().contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{}", first.text());
    for spoof in [
        "x-forwarded-for: 203.0.113.1\r\n",
        "x-forwarded-for: 203.0.113.1\r\nx-forwarded-for: 203.0.113.2\r\n",
        "x-forwarded-for: 10.0.0.1\r\nx-real-ip: 203.0.113.3\r\n",
        "x_forwarded_for: 203.0.113.4\r\n",
        "forwarded: for=203.0.113.5\r\n",
        "x-forwarded-for: \u{1}\r\n",
        "x-forwarded-for: ::1\r\ntrue-client-ip: 203.0.113.6\r\n",
    ] {
        // Refused as malformed, or as the address that it is.
        let answer = edge.ask(&ask(spoof)).await;
        assert!(matches!(answer.status, 400 | 429), "{spoof}: {answer:?}");
    }
    assert_eq!(origin.requests().unwrap().len(), 1);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_who_spoke_to_it() {
    let origin = Origin::echo().await;
    let edge = edge(trusting(), &origin.address);
    for (fields, client) in [
        ("x-forwarded-for: 203.0.113.1\r\n", "203.0.113.1"),
        ("x-forwarded-for: 203.0.113.1, 203.0.113.2, 10.1.1.1\r\n", "203.0.113.2"),
        ("x-forwarded-for: 203.0.113.1\r\nx-forwarded-for: 203.0.113.3\r\n", "203.0.113.3"),
        ("x-forwarded-for: [2001:db8:1::1]:4711\r\n", "2001:db8:1::1"),
        ("x-forwarded-for: ::ffff:203.0.113.4\r\n", "203.0.113.4"),
    ] {
        let answer = edge.ask(&ask(fields)).await;
        assert_eq!(answer.status, 200, "{fields}");
        let told = format!("\r\nx-forwarded-for: {client}\r\n");
        assert!(answer.text().contains(&told), "{fields}: {}", answer.text());
        // However it is written, it is the same address, and what is left of it does not count.
        for again in [
            format!("x-forwarded-for: {client}\r\n"),
            format!("x-forwarded-for: 198.51.100.9\r\nx-forwarded-for: {client}, 10.9.9.9\r\n"),
        ] {
            assert_eq!(edge.ask(&ask(&again)).await.status, 429, "{again}");
        }
    }
    // What is no address is nobody's: then it is the proxy that asks.
    let answer = edge.ask(&ask("x-forwarded-for: 203.0.113.8, nobody\r\n")).await;
    assert!(answer.text().contains("x-forwarded-for: 127.0.0.1\r\n"), "{}", answer.text());
    // `Forwarded` is not read, for a proxy that writes one of the two may pass on the other.
    let told = "forwarded: for=203.0.113.9\r\nx-forwarded-for: 203.0.113.10\r\n";
    let answer = edge.ask(&ask(told)).await;
    assert!(answer.text().contains("x-forwarded-for: 203.0.113.10\r\n"), "{}", answer.text());
    assert!(!answer.text().contains("203.0.113.9\r\n"), "{}", answer.text());
}

#[tokio::test]
async fn clients_of_one_proxy_connection_are_told_apart() {
    let origin = Origin::echo().await;
    let edge = edge(trusting(), &origin.address);
    let mut proxy = edge.connect().await;
    for (client, status) in [(1, 200), (2, 200), (1, 429), (3, 200), (2, 429)] {
        let fields = format!("host: a\r\nx-forwarded-for: 203.0.113.{client}\r\n");
        proxy.send(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
        assert_eq!(proxy.answer().await.unwrap().status, status, "{client}");
    }
}

#[tokio::test]
async fn scheme_and_host_of_a_trusted_proxy_are_passed_on() {
    let origin = Origin::echo().await;
    let edge = edge(trusting(), &origin.address);
    let said = "x-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n";
    let answer = edge.ask(&ask(&format!("x-forwarded-for: 203.0.113.1\r\n{said}"))).await;
    for field in said.lines() {
        assert!(answer.text().contains(&format!("{field}\r\n")), "{field}: {}", answer.text());
    }
    let unclear = "x-forwarded-proto: gopher\r\nx-forwarded-host: a\r\nx-forwarded-host: b\r\n";
    let answer = edge.ask(&ask(&format!("x-forwarded-for: 203.0.113.2\r\n{unclear}"))).await;
    assert!(answer.text().contains("x-forwarded-proto: http\r\n"), "{}", answer.text());
    assert!(!answer.text().contains("x-forwarded-host"), "{}", answer.text());
}

#[tokio::test]
async fn a_proxy_may_have_more_connections_than_an_address() {
    let origin = Origin::echo().await;
    for (base, status) in [(trusting(), 200), (config(), 503)] {
        let edge = edge(Config { connections_per_ip_max: 2, ..base }, &origin.address);
        let _two = (edge.connect().await, edge.connect().await);
        let answer = edge.ask(&ask("x-forwarded-for: 203.0.113.1\r\n")).await;
        assert_eq!(answer.status, status);
    }
}
