//! Instances that a DNS server tells of, and what becomes of calls when its answers change.

use crate::support::{Client, Edge, one_worker, origin, soon};
use gateway::Config;
use soa::{Balance, DnsConfig, ServiceConfig};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};
use test_servers::{Dns, Told};
use tokio::net::TcpListener;

/// Instances on one port, on several addresses of the loopback network; each tells its address
/// and the `Host` that it was asked by.
async fn instances<const N: usize>() -> (u16, [IpAddr; N]) {
    let ips: [IpAddr; N] =
        std::array::from_fn(|index| IpAddr::from([127, 0, 0, u8::try_from(index + 1).unwrap()]));
    'ports: loop {
        let mut listeners = vec![TcpListener::bind((ips[0], 0)).await.unwrap()];
        let port = listeners[0].local_addr().unwrap().port();
        for ip in &ips[1..] {
            match TcpListener::bind((*ip, port)).await {
                Ok(listener) => listeners.push(listener),
                Err(_) => continue 'ports,
            }
        }
        for (listener, ip) in listeners.into_iter().zip(ips) {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(tell(Client(stream), ip));
                }
            });
        }
        return (port, ips);
    }
}

async fn tell(mut client: Client, ip: IpAddr) {
    while let Some((_, head)) = client.head().await {
        let host = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        let text = format!("{ip} {}", host.unwrap_or_default());
        let length = text.len();
        client.send(format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{text}")).await;
    }
}

/// A service of the instances that the name `shop.internal` stands for.
fn by_dns(dns: &Dns, more: &str) -> soa::Config {
    let server = dns.address();
    let text = format!("interval = \"20ms\"\nserver = \"{server}\"\n{more}");
    let dns: DnsConfig = toml::from_str(&text).unwrap();
    let service =
        ServiceConfig { dns: Some(dns), balance: Balance::RoundRobin, ..ServiceConfig::at([]) };
    [("origin".to_owned(), service)].into()
}

fn named(port: u16) -> String {
    format!("name = \"shop.internal\"\nport = {port}\nkeep = \"0s\"")
}

/// Who answers, over a few calls; nobody if there is no instance.
async fn who(edge: &Edge) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let answer = edge.ask("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
        match answer.status {
            200 => {
                let text = answer.text();
                assert!(text.ends_with(" shop.example"), "{text}");
                seen.insert(text.split_once(' ').unwrap().0.to_owned());
            }
            _ => assert_eq!(answer.code(), "no_instance"),
        }
    }
    seen
}

async fn until_they_are(edge: &Edge, expected: &[IpAddr]) {
    let expected: BTreeSet<String> = expected.iter().map(IpAddr::to_string).collect();
    soon(async {
        while who(edge).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_address_of_a_name_is_an_instance_while_it_is_told() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<3>().await);
    let edge = Edge::start(one_worker(), &by_dns(&dns, &named(port)));
    until_they_are(&edge, &[]).await;
    for expected in [&ips[..2], &ips[1..], &ips[..], &ips[..1], &[]] {
        dns.tell("shop.internal", Told::Addresses(expected.to_vec()));
        until_they_are(&edge, expected).await;
    }
    dns.tell("shop.internal", Told::Addresses(ips.to_vec()));
    until_they_are(&edge, &ips).await;
    dns.forget("shop.internal");
    until_they_are(&edge, &[]).await;
}

#[tokio::test]
async fn a_lookup_that_fails_takes_nobody_away() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<2>().await);
    dns.tell("shop.internal", Told::Addresses(ips.to_vec()));
    let services = by_dns(&dns, &named(port));
    let edge = Edge::start(one_worker(), &services);
    until_they_are(&edge, &ips).await;
    for failure in [Told::Failure, Told::Silence] {
        dns.tell("shop.internal", failure);
        let trouble = || {
            let mut troubles = Vec::new();
            edge.gateway.lookup_troubles(|service, why| troubles.push((service.to_owned(), why)));
            troubles
        };
        soon(async {
            while trouble().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(trouble()[0].0, "origin");
        assert_eq!(who(&edge).await.len(), 2);
        // Neither does a reload.
        edge.gateway.reload(one_worker(), &services).unwrap();
        assert_eq!(who(&edge).await.len(), 2);
        dns.tell("shop.internal", Told::Addresses(ips.to_vec()));
        soon(async {
            while !trouble().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// One of the two questions fails: what the other tells is taken, and nobody is taken away.
#[tokio::test]
async fn a_lookup_that_fails_in_half_adds_only() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<3>().await);
    dns.tell("shop.internal", Told::Half(ips[..2].to_vec()));
    let edge = Edge::start(one_worker(), &by_dns(&dns, &named(port)));
    until_they_are(&edge, &ips[..2]).await;
    dns.tell("shop.internal", Told::Half(ips[2..].to_vec()));
    until_they_are(&edge, &ips).await;
    dns.tell("shop.internal", Told::Addresses(ips[2..].to_vec()));
    until_they_are(&edge, &ips[2..]).await;
}

#[tokio::test]
async fn a_name_without_addresses_keeps_those_it_had_for_a_time() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<2>().await);
    dns.tell("shop.internal", Told::Addresses(ips.to_vec()));
    let kept = format!("name = \"shop.internal\"\nport = {port}\nkeep = \"1h\"");
    let edge = Edge::start(one_worker(), &by_dns(&dns, &kept));
    until_they_are(&edge, &ips).await;
    for gone in [true, false] {
        if gone {
            dns.forget("shop.internal");
        } else {
            dns.tell("shop.internal", Told::Addresses(Vec::new()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(who(&edge).await.len(), 2);
    }
}

#[tokio::test]
async fn services_are_told_with_their_port_and_weight() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<3>().await);
    for (host, ip) in [("a.internal", ips[0]), ("b.internal", ips[1]), ("c.internal", ips[2])] {
        dns.tell(host, Told::Addresses(vec![ip]));
    }
    let service = |priority, weight, host: &str| (priority, weight, port, host.to_owned());
    let told = [service(1, 3, "a.internal"), service(1, 1, "b.internal")];
    let spare = service(2, 1, "c.internal");
    dns.tell("_http._tcp.shop", Told::Services([&told[..], std::slice::from_ref(&spare)].concat()));
    let edge = Edge::start(one_worker(), &by_dns(&dns, "srv = \"_http._tcp.shop\""));
    until_they_are(&edge, &ips[..2]).await;
    let mut weights = Vec::new();
    edge.gateway.instances(|_, instance, weight, origin, _| {
        weights.push((instance.authority().to_owned(), weight, origin.as_str()));
    });
    weights.sort();
    let of = |ip: IpAddr, weight| (SocketAddr::new(ip, port).to_string(), weight, "dns");
    assert_eq!(weights, [of(ips[0], 3), of(ips[1], 1)]);
    dns.tell("_http._tcp.shop", Told::Services(vec![spare]));
    until_they_are(&edge, &ips[2..]).await;
}

#[tokio::test]
async fn answers_that_flap_fail_no_call_and_open_no_new_connections() {
    let dns = Dns::start().unwrap();
    let accepted = Arc::new(AtomicU16::new(0));
    let counted = accepted.clone();
    let stays = origin(move |mut client: Client, _| {
        counted.fetch_add(1, SeqCst);
        async move {
            while client.head().await.is_some() {
                client.send("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let port = stays.rsplit_once(':').unwrap().1.parse().unwrap();
    let nowhere = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let addresses = |with: bool| {
        let both = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        Told::Addresses(if with { both.to_vec() } else { both[..1].to_vec() })
    };
    // Who refuses connections is tried once a second, and the other takes the call.
    drop(nowhere);
    dns.tell("shop.internal", addresses(false));
    let edge = Edge::start(one_worker(), &by_dns(&dns, &named(port)));
    until_one_answers(&edge).await;
    for round in 0..40 {
        dns.tell("shop.internal", addresses(round % 2 == 0));
        for _ in 0..5 {
            assert_eq!(edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(accepted.load(SeqCst) <= 2, "connections outlive every answer");
}

async fn until_one_answers(edge: &Edge) {
    soon(async {
        while edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_dns_adds_stands_beside_what_is_configured_and_is_checked_first() {
    let (dns, (port, ips)) = (Dns::start().unwrap(), instances::<2>().await);
    dns.tell("shop.internal", Told::Addresses(ips.to_vec()));
    let mut services = by_dns(&dns, &named(port));
    let service = services.get_mut("origin").unwrap();
    service.instances = vec![format!("http://{}:{port}", ips[0]).into()];
    // Nobody listens at the third address, which is never called.
    let nobody = IpAddr::from([127, 0, 0, 77]);
    service.health = Some(toml::from_str("interval = \"20ms\"").unwrap());
    dns.tell("shop.internal", Told::Addresses(vec![ips[0], ips[1], nobody]));
    let edge = Edge::start(one_worker(), &services);
    until_they_are(&edge, &ips).await;
    let mut seen = Vec::new();
    edge.gateway.instances(|_, instance, _, origin, elapsed| {
        seen.push((
            instance.authority().to_owned(),
            origin.as_str(),
            instance.condition(elapsed).as_str(),
        ));
    });
    let at = |ip: IpAddr| SocketAddr::new(ip, port).to_string();
    let expected =
        [(at(ips[0]), "config", "fit"), (at(ips[1]), "dns", "fit"), (at(nobody), "dns", "unfit")];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_cannot_be_looked_up_is_refused_at_the_start() {
    let refused = |dns: &str, expected: &str| {
        let text = format!("[s]\ndns = {{ {dns} }}");
        let services: soa::Config = toml::from_str(&text).unwrap();
        let error = gateway::Gateway::check(&Config::default(), &services).unwrap_err().to_string();
        assert!(error.contains(expected), "{dns}: {error}");
    };
    refused("name = \"shop.internal\"", "give `name` and `port`, or `srv` alone");
    refused("name = \"a\", port = 1, srv = \"b\"", "give `name` and `port`, or `srv` alone");
    refused("name = \"10.0.0.1\", port = 80", "`10.0.0.1` is no name");
    refused("name = \"a..b\", port = 80", "`a..b` is no name");
    refused("name = \"a\", port = 0", "`port` is 0");
    refused("name = \"a\", port = 1, interval = \"0s\"", "`dns.interval`");
    assert!(toml::from_str::<soa::Config>("[s]\ndns = { nam = \"a\" }").is_err());
}
