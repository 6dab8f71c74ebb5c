use super::*;
use crate::config::RegistrationConfig;

fn config(text: &str) -> RegistrationConfig {
    toml::from_str(&format!("tenants = [\"acme\"]\nroles = [\"registrar\"]\n{text}")).unwrap()
}

/// What is decided of a URL alone, and of its host if that is an address. A name has yet to be
/// looked up.
fn decide(text: &str, config: &RegistrationConfig) -> Result<Option<IpAddr>, String> {
    let ip = match Target::parse(text)?.host {
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
        Host::Domain(_) => return Ok(None),
    };
    judge(ip, &config.reach()).map(|()| Some(ip)).map_err(str::to_owned)
}

/// Each leads, for some reader or other, to where a registrar has no business.
pub(crate) const REFUSED: &[&str] = &[
    // This machine, in all spellings.
    "http://127.0.0.1:80",
    "http://127.1:80",
    "http://127.0.1:80",
    "http://127.255.255.254:80",
    "http://2130706433:80",
    "http://0x7f000001:80",
    "http://0x7f.0.0.1:80",
    "http://0x7f.1:80",
    "http://017700000001:80",
    "http://0177.0.0.1:80",
    "http://0177.0.0.01:80",
    "http://00000177.0.0.1:80",
    "http://127.0.0.1.:80",
    "http://127。0。0。1:80",
    "http://①②⑦.0.0.1:80",
    "http://%31%32%37.0.0.1:80",
    "http://127.0.0.%31:80",
    "http://0:80",
    "http://0.0.0.0:80",
    "http://0x0:80",
    "http://[::1]:80",
    "http://[0:0:0:0:0:0:0:1]:80",
    "http://[::]:80",
    "http://[::ffff:127.0.0.1]:80",
    "http://[::ffff:7f00:1]:80",
    "http://[0:0:0:0:0:ffff:7f00:0001]:80",
    "http://[::127.0.0.1]:80",
    "http://[::7f00:1]:80",
    "http://[64:ff9b::7f00:1]:80",
    "http://[64:ff9b:1::7f00:1]:80",
    "http://[2002:7f00:1::]:80",
    "http://[2001:0:7f00:1::]:80",
    "http://[::ffff:0:7f00:1]:80",
    "http://[fe80::200:5efe:127.0.0.1]:80",
    "http://[2a00::5efe:7f00:1]:80",
    // Networks of others.
    "http://10.0.0.1:80",
    "http://10.1:80",
    "http://012.0.0.1:80",
    "http://172.16.0.1:80",
    "http://172.31.255.255:80",
    "http://192.168.0.1:80",
    "http://192.168.1:80",
    "http://3232235521:80",
    "http://0xc0a80001:80",
    "http://100.64.0.1:80",
    "http://100.127.255.255:80",
    "http://[::ffff:10.0.0.1]:80",
    "http://[fc00::1]:80",
    "http://[fd12:3456:789a::1]:80",
    "http://[fec0::1]:80",
    "http://[2002:a00:1::]:80",
    "http://[64:ff9b::a00:1]:80",
    // Link-local, and what clouds keep there.
    "http://169.254.0.1:80",
    "http://169.254.169.254:80",
    "http://2852039166:80",
    "http://0xa9fea9fe:80",
    "http://0251.0376.0251.0376:80",
    "http://[::ffff:169.254.169.254]:80",
    "http://[fd00:ec2::254]:80",
    "http://100.100.100.200:80",
    "http://168.63.129.16:80",
    "http://[fe80::1]:80",
    "http://[fe80::1%25eth0]:80",
    "http://[fe80::1%eth0]:80",
    // No machine, or one of a book.
    "http://224.0.0.1:80",
    "http://255.255.255.255:80",
    "http://240.0.0.1:80",
    "http://198.18.0.1:80",
    "http://192.0.2.1:80",
    "http://203.0.113.9:80",
    "http://192.88.99.1:80",
    "http://[ff02::1]:80",
    "http://[2001:db8::1]:80",
    "http://[100::1]:80",
    // Other hosts than they seem, or more than an address.
    "http://user@8.8.8.8:80",
    "http://user:password@8.8.8.8:80",
    "http://8.8.8.8:80@127.0.0.1:80",
    "http://127.0.0.1:80#@8.8.8.8:80",
    "http://8.8.8.8:80/",
    "http://8.8.8.8:80/path",
    "http://8.8.8.8:80?query",
    "http://8.8.8.8:80#fragment",
    "http://8.8.8.8:80\\@127.0.0.1",
    "http:\\\\127.0.0.1:80",
    "http:127.0.0.1:80",
    "http:///127.0.0.1:80",
    "//127.0.0.1:80",
    "127.0.0.1:80",
    " http://8.8.8.8:80",
    "http://8.8.8.8:80 ",
    "http://8.8.8.8\t:80",
    "http://8.8.8.8\r\n:80",
    "http://8.8.8.8:0",
    "http://8.8.8.8:65536",
    "http://8.8.8.8:080",
    "http://8.8.8.8:",
    "http://008.8.8.8:80",
    "HTTP://8.8.8.8:80",
    "http://shop.example.:80",
    "http://localhost.:80",
    "http://SHOP.example:80",
    "http://shop%2eexample:80",
    "http://:80",
    "http://",
    "",
    "ftp://8.8.8.8:21",
    "file:///etc/passwd",
    "gopher://127.0.0.1:70",
    "unix:///run/docker.sock",
    "javascript:alert(1)",
];

#[test]
fn what_leads_elsewhere_is_refused_in_every_spelling() {
    assert!(REFUSED.len() >= 60);
    for text in REFUSED {
        assert!(decide(text, &config("")).is_err(), "{text}");
    }
    let long = format!("http://{}.example:80", "a".repeat(400));
    assert!(decide(&long, &config("")).is_err());
}

#[test]
fn public_addresses_and_names_are_taken_as_they_are_written() {
    for text in ["http://8.8.8.8:80", "http://8.8.8.8", "https://1.1.1.1:8443", "https://1.1.1.1"] {
        assert!(decide(text, &config("")).unwrap().unwrap().is_ipv4(), "{text}");
    }
    assert!(decide("http://[2a00:1450::1]:80", &config("")).unwrap().unwrap().is_ipv6());
    for text in ["http://shop.example:80", "http://shop", "http://xn--bcher-kva.example"] {
        assert_eq!(decide(text, &config("")), Ok(None), "{text}");
    }
}

#[test]
fn networks_allow_what_is_in_them_and_nothing_else() {
    let inside = config("networks = [\"10.0.0.0/8\", \"fd00::/8\", \"169.254.0.0/16\"]");
    for text in ["http://10.0.0.7:80", "http://[fd12::1]:80", "http://169.254.1.1:80"] {
        assert!(decide(text, &inside).is_ok(), "{text}");
    }
    // A network does not open what no network is to open.
    for text in [
        "http://8.8.8.8:80",
        "http://127.0.0.1:80",
        "http://169.254.169.254:80",
        "http://[fd00:ec2::254]:80",
        "http://[64:ff9b::a00:1]:80",
        "http://0.0.0.0:80",
    ] {
        assert!(decide(text, &inside).is_err(), "{text}");
    }
    let here = config("loopback = true");
    for text in ["http://127.0.0.1:80", "http://[::1]:80", "http://8.8.8.8:80"] {
        assert!(decide(text, &here).is_ok(), "{text}");
    }
    assert!(decide("http://10.0.0.7:80", &here).is_err());
    let everything = config("loopback = true\nnetworks = [\"0.0.0.0/0\", \"::/0\"]");
    for text in ["http://169.254.169.254:80", "http://224.0.0.1:80", "http://[2002:7f00:1::]:80"] {
        assert!(decide(text, &everything).is_err(), "{text}");
    }
}
