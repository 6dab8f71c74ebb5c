//! Who the client is, and what it asked for, behind proxies that are trusted to say so.

use crate::fields;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, SocketAddr};
use types::Cidr;

/// A client that a trusted proxy speaks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) ip: IpAddr,
    /// Its address, as services are told.
    pub(crate) address: HeaderValue,
    /// `http` or `https`, if the proxy says which.
    pub(crate) proto: Option<HeaderValue>,
    /// The host that it asked for, if the proxy says so.
    pub(crate) host: Option<HeaderValue>,
}

impl Client {
    /// The client of a request that came from `peer`, which is trusted.
    pub(crate) fn of(headers: &HeaderMap, peer: IpAddr, trusted: &[Cidr]) -> Self {
        let lines = headers.get_all(fields::FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let ip = client_ip(lines, peer, trusted);
        let proto = only(headers, &fields::FORWARDED_PROTO);
        let proto = proto.filter(|proto| matches!(proto.as_bytes(), b"http" | b"https"));
        let host = only(headers, &fields::FORWARDED_HOST);
        let host = host.filter(|host| http1::is_authority(host.as_bytes()));
        Self { ip, address: address(ip), proto: proto.cloned(), host: host.cloned() }
    }
}

/// An address as services are told it.
pub(crate) fn address(ip: IpAddr) -> HeaderValue {
    let text = ip.to_canonical().to_string();
    HeaderValue::from_str(&text).expect("an address is visible ASCII")
}

/// A field that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The rightmost address of `X-Forwarded-For` that is not trusted: whoever is left of it said
/// what he liked. What cannot be read ends the search at the proxy that passed it on, and so
/// does the list's own end.
fn client_ip<'a>(
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    peer: IpAddr,
    trusted: &[Cidr],
) -> IpAddr {
    let mut client = peer.to_canonical();
    for entry in lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let Some(ip) = read(entry) else { break };
        client = ip;
        if !trusted.iter().any(|trusted| trusted.contains(ip)) {
            break;
        }
    }
    client
}

/// An address, with or without a port.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let ip: Option<IpAddr> = text.parse().ok();
    let ip = ip.or_else(bracketed).or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> Vec<Cidr> {
        ["10.0.0.0/8", "2001:db8:1::/48"].iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        for (lines, client) in [
            (&[][..], "10.0.0.1"),
            (&["203.0.113.7"], "203.0.113.7"),
            // What the client wrote is left of what the proxy saw.
            (&["127.0.0.1, 203.0.113.7"], "203.0.113.7"),
            (&["10.9.9.9, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.2.2.2, 10.3.3.3"], "203.0.113.7"),
            (&["10.4.4.4, 10.2.2.2"], "10.4.4.4"),
            // Several lines are one list.
            (&["1.1.1.1", "203.0.113.7, 10.2.2.2", "10.3.3.3"], "203.0.113.7"),
            (&["203.0.113.7", "198.51.100.2"], "198.51.100.2"),
            // Forms of addresses.
            (&[" 203.0.113.7:4711\t"], "203.0.113.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:443"], "2001:db8::7"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, ::ffff:10.1.1.1"], "203.0.113.7"),
            (&["203.0.113.7, 2001:db8:1::2"], "203.0.113.7"),
            // What is no address is nobody's, and nothing left of it is believed.
            (&["203.0.113.7, unknown"], "10.0.0.1"),
            (&["203.0.113.7, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["203.0.113.7,"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["203.0.113.7;evil"], "10.0.0.1"),
            (&["010.0.0.1"], "10.0.0.1"),
            (&["[203.0.113.7]"], "10.0.0.1"),
            (&["203.0.113.7:99999"], "10.0.0.1"),
            (&["\u{e4}"], "10.0.0.1"),
        ] {
            let lines = lines.iter().map(|line| line.as_bytes());
            let found = client_ip(lines, "::ffff:10.0.0.1".parse().unwrap(), &trusted());
            assert_eq!(found.to_string(), client);
        }
    }

    #[test]
    fn scheme_and_host_are_taken_if_they_are_clear() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let of = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let Client { proto, host, .. } = Client::of(&headers, peer, &trusted());
            let text = |value: Option<HeaderValue>| value.map(|v| v.to_str().unwrap().to_owned());
            (text(proto), text(host))
        };
        let (proto, host) = ("x-forwarded-proto", "x-forwarded-host");
        let clear = of(&[(proto, "https"), (host, "a.example:8443")]);
        assert_eq!(clear, (Some("https".into()), Some("a.example:8443".into())));
        assert_eq!(of(&[(proto, "gopher"), (host, "a b")]), (None, None));
        assert_eq!(
            of(&[(proto, "http"), (proto, "https"), (host, "a"), (host, "b")]),
            (None, None)
        );
        assert_eq!(of(&[(proto, "https, http")]), (None, None));
    }
}
