//! Whom a client's certificate stands for, by rules: nothing of a certificate means anything
//! that no rule says.
//!
//! A rule looks at names of one kind, and at them whole: part by part, where each part is equal
//! or stands for the tenant or the principal.

use serde::Deserialize;
use std::time::Duration;
use types::{
    Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId, Timestamp,
};
use x509_cert::{
    Certificate,
    der::{
        Decode, Tag, Tagged,
        asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The attribute `commonName` (RFC 4519, section 2.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A [`Rule`] as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A URI among the certificate's alternative names, such as
    /// `spiffe://example.org/{tenant}/{name}`: between slashes, `{tenant}` and `{name}` stand
    /// for what is there, and everything else has to be equal. One of `uri`, `dns` and
    /// `common_name`.
    pub uri: Option<String>,
    /// A DNS name among them, such as `{name}.{tenant}.internal.example.org`, with dots between
    /// its parts.
    pub dns: Option<String>,
    /// The common name of the certificate's subject: its text, or only `{tenant}` or `{name}`.
    pub common_name: Option<String>,
    /// The tenant, unless `{tenant}` stands for it.
    pub tenant: Option<TenantId>,
    /// The principal's name, unless `{name}` stands for it.
    pub name: Option<PrincipalId>,
    /// `user`, `agent` or `service`. Default `service`.
    #[serde(default = "service")]
    pub kind: PrincipalKind,
    /// The roles granted. Default: none.
    #[serde(default)]
    pub roles: Vec<Role>,
}

fn service() -> PrincipalKind {
    PrincipalKind::Service
}

/// Whom certificates with certain names stand for. The first rule that knows a name of a
/// certificate decides; a certificate of which it knows two names that differ is nobody's.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Config")]
pub struct Rule {
    of: Kind,
    parts: Vec<Part>,
    tenant: Option<TenantId>,
    name: Option<PrincipalId>,
    kind: PrincipalKind,
    roles: Vec<Role>,
}

/// A kind of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uri,
    Dns,
    CommonName,
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Equal(String),
    Tenant,
    Name,
}

impl Kind {
    fn parts(self, text: &str) -> Vec<&str> {
        match self {
            Self::Uri => text.split('/').collect(),
            Self::Dns => text.split('.').collect(),
            Self::CommonName => vec![text],
        }
    }
}

/// Whom a certificate stands for, in DER, whose holder has proved that it is his; nobody, if no
/// rule says so.
pub(super) fn caller(rules: &[Rule], certificate: &[u8]) -> Option<Caller> {
    let names = Names::read(certificate)?;
    rules.iter().find_map(|rule| rule.apply(&names))?
}

impl TryFrom<Config> for Rule {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let given = [
            (Kind::Uri, &config.uri),
            (Kind::Dns, &config.dns),
            (Kind::CommonName, &config.common_name),
        ];
        let mut given = given.into_iter().filter_map(|(of, text)| Some((of, text.as_deref()?)));
        let (Some((of, text)), None) = (given.next(), given.next()) else {
            return Err("a rule of `identity.certificates` has one of `uri`, `dns` and \
                 `common_name`"
                .into());
        };
        let wrong = |why: &str| Err(format!("the certificates of `{text}`: {why}"));
        let mut parts = Vec::new();
        for part in of.parts(text) {
            parts.push(match part {
                "{tenant}" => Part::Tenant,
                "{name}" => Part::Name,
                part if part.contains(['{', '}', '*']) => {
                    return wrong(
                        "`{tenant}` and `{name}` stand for whole parts, and nothing else \
                         stands for anything",
                    );
                }
                part if of == Kind::Dns => Part::Equal(part.to_ascii_lowercase()),
                part => Part::Equal(part.to_owned()),
            });
        }
        let count = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
        if count(&Part::Tenant) + usize::from(config.tenant.is_some()) != 1 {
            return wrong("it needs `tenant`, or `{tenant}` once");
        }
        if count(&Part::Name) + usize::from(config.name.is_some()) != 1 {
            return wrong("it needs `name`, or `{name}` once");
        }
        let Config { tenant, name, kind, roles, .. } = config;
        Ok(Self { of, parts, tenant, name, kind, roles })
    }
}

impl Rule {
    /// Whom it makes of a certificate, nobody included; nothing if it knows none of the names.
    fn apply(&self, names: &Names) -> Option<Option<Caller>> {
        let names_of = match self.of {
            Kind::Uri => &names.uris,
            Kind::Dns => &names.dns,
            Kind::CommonName => &names.common,
        };
        let mut known = names_of.iter().filter_map(|name| self.known(name));
        let found = known.next()?;
        if known.any(|other| other != found) {
            return Some(None);
        }
        let (tenant, id) = found;
        let principal = Principal { kind: self.kind, id };
        Some(Some(Caller {
            roles: self.roles.clone().into(),
            expires: Some(names.expires),
            ..Caller::new(tenant, principal, CredentialKind::Certificate)
        }))
    }

    fn known(&self, name: &str) -> Option<(TenantId, PrincipalId)> {
        let parts = self.of.parts(name);
        if parts.len() != self.parts.len() {
            return None;
        }
        let (mut tenant, mut id) = (self.tenant.clone(), self.name.clone());
        for (wanted, part) in self.parts.iter().zip(parts) {
            match wanted {
                Part::Equal(text) => (text == part).then_some(())?,
                Part::Tenant => tenant = Some(TenantId::new(part).ok()?),
                Part::Name => id = Some(PrincipalId::new(part).ok()?),
            }
        }
        Some((tenant?, id?))
    }
}

/// What a certificate says of its holder.
#[derive(Debug)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
    /// One at most: of several, none is the common one.
    common: Vec<String>,
    expires: Timestamp,
}

impl Names {
    fn read(certificate: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        let alternatives = certificate.get::<SubjectAltName>().ok()?;
        for name in alternatives.map(|(_, names)| names.0).unwrap_or_default() {
            if let GeneralName::UniformResourceIdentifier(uri) = name {
                uris.push(uri.as_str().to_owned());
            } else if let GeneralName::DnsName(name) = name {
                dns.push(name.as_str().to_ascii_lowercase());
            }
        }
        let mut common = Vec::new();
        let attributes = certificate.subject.0.iter().flat_map(|names| names.0.iter());
        for attribute in attributes.filter(|attribute| attribute.oid == COMMON_NAME) {
            let value = &attribute.value;
            common.push(if value.tag() == Tag::PrintableString {
                value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned()
            } else {
                value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned()
            });
        }
        if common.len() > 1 {
            common.clear();
        }
        let until: Duration = certificate.validity.not_after.to_unix_duration();
        let expires = Timestamp(u64::try_from(until.as_millis()).ok()?);
        Some(Self { uris, dns, common, expires })
    }
}

#[cfg(test)]
mod tests;
