use super::*;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

/// A certificate with these URIs, DNS names and common names.
fn certificate(uris: &[&str], dns: &[&str], common: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
    let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
    params.subject_alt_names = uris.chain(dns).collect();
    params.distinguished_name.remove(DnType::CommonName);
    for name in common {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn rules(text: &str) -> Result<Vec<Rule>, String> {
    #[derive(Deserialize)]
    struct All {
        rules: Vec<Rule>,
    }
    toml::from_str(text).map(|all: All| all.rules).map_err(|error| error.to_string())
}

/// Whom a certificate stands for by a rule, as `tenant kind name roles`.
fn who(rule: &str, certificate: &[u8]) -> String {
    let rules = rules(&format!("[[rules]]\n{rule}")).unwrap();
    let Some(caller) = caller(&rules, certificate) else { return "nobody".into() };
    assert_eq!(caller.expires, Some(Timestamp(4_102_444_800_000)));
    let roles: Vec<_> = caller.roles.iter().map(Role::as_str).collect();
    let Principal { kind, id } = &caller.principal;
    format!("{} {kind} {id} {}", caller.tenant, roles.join(","))
}

#[test]
fn names_are_known_whole_and_part_by_part() {
    let spiffe = "uri = \"spiffe://example.org/{tenant}/service/{name}\"\nroles = [\"internal\"]";
    let of = |uri| who(spiffe, &certificate(&[uri], &["a.acme.example.org"], &["billing"]));
    assert_eq!(of("spiffe://example.org/acme/service/billing"), "acme service billing internal");
    for other in [
        "spiffe://example.org/acme/service/billing/more",
        "spiffe://example.org/acme/service/",
        "spiffe://example.org//service/billing",
        "spiffe://example.org/acme/worker/billing",
        "spiffe://Example.org/acme/service/billing",
        "spiffe://example.org.evil/acme/service/billing",
        "https://example.org/acme/service/billing",
        "spiffe://example.org/ac%2fme/service/billing",
        "spiffe://example.org/system.crosstown/service/billing",
    ] {
        assert_eq!(of(other), "nobody", "{other}");
    }
    let dns = "dns = \"{name}.{tenant}.Example.org\"\nkind = \"agent\"";
    let of = |name| who(dns, &certificate(&["x:y"], &[name], &[]));
    assert_eq!(of("Bot.acme.example.ORG"), "acme agent bot ");
    assert_eq!(of("bot.acme.example.org.evil"), "nobody");
    assert_eq!(of("a.bot.acme.example.org"), "nobody");
    let common = "common_name = \"billing\"\ntenant = \"acme\"\nname = \"b\"\nkind = \"user\"";
    let of = |names: &[&str]| who(common, &certificate(&[], &["billing"], names));
    assert_eq!(of(&["billing"]), "acme user b ");
    assert_eq!(of(&["Billing"]), "nobody");
    assert_eq!(of(&[]), "nobody");
    let any = "common_name = \"{name}\"\ntenant = \"acme\"";
    assert_eq!(who(any, &certificate(&[], &[], &["b"])), "acme service b ");
    assert_eq!(who(any, &certificate(&[], &[], &["a, b"])), "nobody");
    assert_eq!(who(any, b"no certificate"), "nobody");
}

#[test]
fn of_two_holders_none_is_believed_and_the_first_rule_decides() {
    let any = "uri = \"s://x/{name}\"\ntenant = \"acme\"";
    assert_eq!(who(any, &certificate(&["s://x/a", "s://x/b"], &[], &[])), "nobody");
    assert_eq!(who(any, &certificate(&["s://x/a", "s://y/b"], &[], &[])), "acme service a ");
    let two = format!("{any}\n[[rules]]\nuri = \"s://x/a\"\nname = \"b\"\ntenant = \"acme\"");
    assert_eq!(who(&two, &certificate(&["s://x/a"], &[], &[])), "acme service a ");
}

#[test]
fn a_rule_that_leaves_something_open_is_refused() {
    for (rule, why) in [
        ("tenant = \"a\"\nname = \"b\"", "one of `uri`, `dns`"),
        ("uri = \"a\"\ndns = \"a\"\ntenant = \"a\"\nname = \"b\"", "one of `uri`, `dns`"),
        ("uri = \"s://{name}\"", "it needs `tenant`"),
        ("uri = \"s://{tenant}/{tenant}/{name}\"", "it needs `tenant`"),
        ("uri = \"s://{tenant}/{name}\"\ntenant = \"a\"", "it needs `tenant`"),
        ("uri = \"s://{tenant}\"", "it needs `name`"),
        ("uri = \"s://{tenant}/{name}\"\nname = \"a\"", "it needs `name`"),
        ("uri = \"s://x-{tenant}/{name}\"", "whole parts"),
        ("uri = \"s://*/{tenant}/{name}\"", "whole parts"),
        ("uri = \"s://{tenant}/{role}/{name}\"", "whole parts"),
        ("uri = \"s://{tenant}/{name}\"\nany = true", "unknown field"),
    ] {
        let said = rules(&format!("[[rules]]\n{rule}")).unwrap_err();
        assert!(said.contains(why), "{rule}: {said}");
    }
}
