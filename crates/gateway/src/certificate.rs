//! The certificate of a client's connection, as its credential.

use crate::{
    core::Core,
    tls::{EdgeTls, Material},
};
use http::{HeaderMap, header};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::{cell::RefCell, sync::Arc, time::Duration};
use transport::Tls;
use types::Caller;

/// A certificate that a client has proved to be its own.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    known: RefCell<Known>,
}

/// Whom it stands for, by what clients' certificates had to satisfy then.
#[derive(Debug)]
struct Known {
    by: Arc<Material>,
    caller: Option<Arc<Caller>>,
}

impl ClientCertificate {
    /// That of a connection, which `by` has verified.
    pub(crate) fn of(core: &Core, tls: &Tls, by: Arc<Material>) -> Option<Self> {
        let chain = tls.peer_certificates()?;
        let caller = chain.first().and_then(|own| core.node.identity.certified(own));
        Some(Self { chain, known: RefCell::new(Known { by, caller }) })
    }

    /// Whom it stands for, if it holds: by what is asked of certificates now, which may be more
    /// than when the connection was made.
    pub(crate) fn caller(&self, core: &Core) -> Option<Arc<Caller>> {
        let now = core.node.clock.now();
        let tls = core.snapshot().tls.clone();
        let known = &mut *self.known.borrow_mut();
        let by = tls.as_deref().map(EdgeTls::material)?;
        if !Arc::ptr_eq(&by, &known.by) {
            let holds = self.holds(&by, UnixTime::since_unix_epoch(Duration::from_millis(now.0)));
            known.caller = known.caller.take().filter(|_| holds);
            known.by = by;
        }
        let caller = known.caller.as_ref()?;
        caller.expires.is_some_and(|until| now < until).then(|| Arc::clone(caller))
    }

    fn holds(&self, by: &Material, now: UnixTime) -> bool {
        let (Some(clients), Some((own, others))) = (&by.clients, self.chain.split_first()) else {
            return false;
        };
        clients.verify_client_cert(own, others, now).is_ok()
    }
}

/// Whether a browser asks for a page of another origin. It shows its user's certificate
/// wherever it is sent, so then the certificate says nothing of what the user wants (RFC 6454;
/// Fetch Metadata Request Headers, section 2.2).
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site")
        && !matches!(site.as_bytes(), b"same-origin" | b"none")
    {
        return true;
    }
    let host = headers.get(header::HOST).map_or(&b""[..], |host| host.as_bytes());
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.any(|origin| {
        let own = origin.as_bytes().strip_prefix(b"https://");
        !own.is_some_and(|own| own.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn pages_of_other_origins_are_told_from_programs_and_own_pages() {
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("a.example:8443"));
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&headers), expected, "{fields:?}");
        };
        check(&[], false);
        check(&[("origin", "https://A.example:8443")], false);
        check(&[("origin", "https://a.example:8443"), ("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("origin", "https://a.example")], true);
        check(&[("origin", "http://a.example:8443")], true);
        check(&[("origin", "https://b.example:8443")], true);
        check(&[("origin", "null")], true);
        check(&[("origin", "https://a.example:8443"), ("origin", "https://b.example")], true);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("sec-fetch-site", "same-site")], true);
        check(&[("origin", "https://a.example:8443"), ("sec-fetch-site", "cross-site")], true);
    }
}
