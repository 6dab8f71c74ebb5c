//! Which certificate a client is shown, by the name that it asks for (RFC 6066, section 3).

use ahash::AHashMap;
use rustls::{
    client::verify_server_name,
    pki_types::ServerName,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::sync::Arc;

/// The certificates of the edge.
#[derive(Debug)]
pub(super) struct Names {
    default: Arc<CertifiedKey>,
    exact: AHashMap<String, Arc<CertifiedKey>>,
    /// By what comes behind the first label.
    below: AHashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    pub(super) fn new(default: CertifiedKey) -> Self {
        let (exact, below) = Default::default();
        Self { default: Arc::new(default), exact, below }
    }

    /// Shows `certificate` to those who ask for one of `names`.
    ///
    /// # Errors
    /// One line, if a name is none, is taken, or is not one of the certificate's.
    pub(super) fn add(
        &mut self,
        names: &[String],
        certificate: CertifiedKey,
    ) -> Result<(), String> {
        if names.is_empty() {
            return Err("an entry of `hosts` has no `names`".into());
        }
        let certificate = Arc::new(certificate);
        for name in names {
            let name = name.to_ascii_lowercase();
            let (table, key) = match name.strip_prefix("*.") {
                Some(rest) => (&mut self.below, rest),
                None => (&mut self.exact, name.as_str()),
            };
            if !is_valid_for(&certificate, &name.replacen('*', "any", 1)) {
                return Err(format!("the certificate for `{name}` is not valid for that name"));
            }
            if table.insert(key.to_owned(), Arc::clone(&certificate)).is_some() {
                return Err(format!("two entries of `hosts` are for `{name}`"));
            }
        }
        Ok(())
    }

    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let below = || self.below.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(below).unwrap_or(&self.default)
    }
}

fn is_valid_for(certificate: &CertifiedKey, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    let own = certificate.end_entity_cert().and_then(ParsedCertificate::try_from);
    own.is_ok_and(|own| verify_server_name(&own, &name).is_ok())
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.find(hello.server_name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    fn certificate(names: &[&str]) -> CertifiedKey {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        let provider = ring::default_provider();
        CertifiedKey::from_der(chain, PrivateKeyDer::from(key), &provider).unwrap()
    }

    #[test]
    fn the_nearest_name_decides() {
        let mut names = Names::new(certificate(&["main.example"]));
        let given =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        names.add(&given(&["a.example"]), certificate(&["a.example"])).unwrap();
        names.add(&given(&["*.a.example"]), certificate(&["*.a.example"])).unwrap();
        let shown = |name| {
            let found = names.find(name);
            if Arc::ptr_eq(found, &names.default) {
                "default"
            } else if Arc::ptr_eq(found, &names.exact["a.example"]) {
                "exact"
            } else {
                "below"
            }
        };
        assert_eq!(shown(None), "default");
        assert_eq!(shown(Some("other.example")), "default");
        assert_eq!(shown(Some("A.example")), "exact");
        assert_eq!(shown(Some("x.a.example")), "below");
        assert_eq!(shown(Some("x.y.a.example")), "default");
        let wrong = names.add(&given(&["b.example"]), certificate(&["a.example"])).unwrap_err();
        assert!(wrong.contains("not valid"), "{wrong}");
        let twice = names.add(&given(&["a.example"]), certificate(&["a.example"])).unwrap_err();
        assert!(twice.contains("two entries"), "{twice}");
        assert!(names.add(&[], certificate(&["a.example"])).is_err());
    }
}
