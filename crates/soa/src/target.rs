//! Which addresses somebody else may name: rules against requests that a node is not to make for
//! others (OWASP API Security 2023, API7).

use crate::{config::Scheme, dns};
use protocol::{Code, Problem};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use types::Cidr;
use url::{Host, Url};

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 300;
/// Where clouds hand out the credentials of their machines.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Where an operator lets others lead a node.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// The networks; none: wherever it is public.
    pub networks: &'a [Cidr],
    /// Whether to this machine, too.
    pub loopback: bool,
}

/// Where somebody says that something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Target {
    /// Reads `http://host:port` or `https://host:port`, written in the one way that all programs
    /// read alike.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "`url` must be of the form `http://host:port` or `https://host:port`, with an address \
             or a name in lower case, and nothing else"
                .to_owned()
        };
        if text.len() > URL_BYTES_MAX {
            return Err(format!("`url` has at most {URL_BYTES_MAX} bytes"));
        }
        let url = Url::parse(text).map_err(|_| wrong())?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong()),
        };
        let host = url.host().ok_or_else(wrong)?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or_else(wrong)?;
        // Whatever else is in it, or is spelled otherwise, makes another text.
        let plain = format!("{}://{host}", url.scheme());
        if text != plain && text != format!("{plain}:{port}") {
            return Err(wrong());
        }
        if matches!(&host, Host::Domain(name) if name.ends_with('.') || !name.is_ascii()) {
            return Err(wrong());
        }
        Ok(Self { scheme, host, port })
    }
}

/// Where the target is: every address that its name stands for has to be allowed. `server` is the
/// DNS server that is asked; none: those of the machine.
pub(crate) async fn locate(
    target: &Target,
    reach: &Reach<'_>,
    server: Option<SocketAddr>,
) -> Result<SocketAddr, Problem> {
    let ips: Vec<IpAddr> = match &target.host {
        Host::Ipv4(ip) => vec![IpAddr::V4(*ip)],
        Host::Ipv6(ip) => vec![IpAddr::V6(*ip)],
        Host::Domain(name) => dns::resolve(name, server).await.map_err(|why| {
            Problem::new(Code::BadRequest, format!("it is not known where `{name}` is: {why}"))
        })?,
    };
    for ip in &ips {
        judge(*ip, reach).map_err(|why| {
            Problem::new(Code::Forbidden, format!("nothing may be at {ip}: {why}"))
        })?;
    }
    let ip =
        ips.first().ok_or_else(|| Problem::new(Code::BadRequest, "the name has no address"))?;
    Ok(SocketAddr::new(*ip, target.port))
}

/// Whether somebody may lead a node to `ip`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn judge(ip: IpAddr, config: &Reach<'_>) -> Result<(), &'static str> {
    let ip = ip.to_canonical();
    if METADATA.contains(&ip) {
        return Err("it hands out credentials of machines");
    }
    if ip.is_loopback() {
        return if config.loopback { Ok(()) } else { Err("it is on this machine (`loopback`)") };
    }
    if ip.is_unspecified() || ip.is_multicast() || is_no_host(ip) {
        return Err("it is no address of one machine");
    }
    if !config.networks.is_empty() {
        let is_in = config.networks.iter().any(|network| network.contains(ip));
        return if is_in { Ok(()) } else { Err("it is in none of the `networks`") };
    }
    if is_public(ip) { Ok(()) } else { Err("it is not public (`networks`)") }
}

/// Addresses that stand for no machine of their own (RFC 6890), or for another address in
/// disguise: an IPv4 address in IPv6 form (RFC 4291), 6to4 (RFC 3056), Teredo (RFC 4380), NAT64
/// (RFC 6052 and 8215), ISATAP (RFC 5214).
fn is_no_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0, ..]
            | [0x2002, ..]
            | [0x2001, 0, ..]
            | [0x64, 0xff9b, ..]
            | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => true,
            // Translated (RFC 2765).
            [0, 0, 0, 0, 0xffff, 0, ..] => true,
            _ => false,
        },
    }
}

/// Whether anybody may own it (the registries of RFC 6890).
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_special = match ip.octets() {
                // Carrier-grade NAT (RFC 6598).
                [100, 64..=127, ..] => true,
                // Protocol assignments; 6to4 relays (RFC 7526); benchmarks (RFC 2544).
                [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => true,
                _ => false,
            };
            !(ip.is_private() || ip.is_link_local() || ip.is_documentation() || is_special)
        }
        IpAddr::V6(ip) => match ip.segments() {
            // Only 2000::/3 is given out; of it, not the documentation's (RFC 3849, 9637), not
            // what belongs to protocols (2001::/23), and no benchmarks (RFC 5180).
            [0x2001, 0xdb8, ..] | [0x2001, 0..=0x1ff, ..] => false,
            [0x3fff, 0..=0xfff, ..] => false,
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

#[cfg(test)]
pub(crate) mod tests;
