//! Who calls.

use crate::{certificate::is_cross_site, config::Auth, connection::Conn};
use http::{HeaderMap, HeaderValue, header};
use protocol::{Code, Problem};
use std::{cell::Cell, sync::Arc, time::Duration};
use traffic_cop::identity::Identity;
use types::{Caller, Role};

/// Credentials of one core that the control plane may be checking at once; beyond it,
/// `503 overloaded`.
const IDENTIFYING_MAX: usize = 256;

/// The caller, by the credential in `headers`; without one, by the certificate of the connection
/// if it `is_direct`: that of a proxy, which speaks for others, says nothing of them.
pub(crate) async fn identify(
    conn: &Conn,
    auth: Auth,
    headers: &HeaderMap,
    is_direct: bool,
) -> Result<Option<Arc<Caller>>, Problem> {
    let core = &conn.core;
    let identity = &core.node.identity;
    match auth {
        Auth::None => return Ok(None),
        Auth::Required | Auth::Optional => {}
    }
    let Some(token) = Identity::credential(headers)? else {
        let certificate = conn.certificate.as_ref().filter(|_| is_direct);
        if let Some(certificate) = certificate
            && !is_cross_site(headers)
            && let Some(caller) = certificate.caller(core)
        {
            return unless_blocked(conn, caller).await.map(Some);
        }
        return match (auth, identity.anonymous()) {
            (Auth::Required, _) => {
                Err(Problem::new(Code::Unauthenticated, "a credential is needed here"))
            }
            (Auth::Optional | Auth::None, None) => Ok(None),
            // Nobody in particular can be blocked, too.
            (Auth::Optional | Auth::None, Some(caller)) => {
                unless_blocked(conn, caller).await.map(Some)
            }
        };
    };
    by_token(conn, token).await.map(Some)
}

/// Whom a credential proves that is written as in `Authorization`.
pub(crate) async fn identify_by(
    conn: &Conn,
    credential: &HeaderValue,
) -> Result<Arc<Caller>, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, credential.clone());
    match Identity::credential(&headers)? {
        Some(token) => by_token(conn, token).await,
        None => Err(Problem::new(Code::Unauthenticated, "a credential is needed here")),
    }
}

async fn by_token(conn: &Conn, token: &str) -> Result<Arc<Caller>, Problem> {
    let core = &conn.core;
    let identity = &core.node.identity;
    let epoch = identity.epoch();
    let cached = core.callers.borrow_mut().get(token, epoch, core.node.clock.now());
    if let Some(caller) = cached {
        return Ok(caller);
    }
    let _place = Place::take(&core.identifying)?;
    let token = token.to_owned();
    let asked = core.node.control.spawn(Arc::clone(identity).identify(token.clone()));
    let identified = asked.await.map_err(|error| {
        tracing::error!(%error, "a credential could not be checked");
        Problem::new(Code::Internal, "the credential could not be checked")
    })??;
    core.callers.borrow_mut().insert(token, &identified);
    Ok(identified.caller)
}

/// The caller, if this core has seen the credential of late.
pub(crate) fn known(conn: &Conn, headers: &HeaderMap) -> Option<Arc<Caller>> {
    let core = &conn.core;
    let token = Identity::credential(headers).ok().flatten()?;
    let now = core.node.clock.now();
    core.callers.borrow_mut().get(token, core.node.identity.epoch(), now)
}

/// A caller whom no token had to prove, unless that one is blocked.
pub(crate) async fn unless_blocked(
    conn: &Conn,
    caller: Arc<Caller>,
) -> Result<Arc<Caller>, Problem> {
    let core = &conn.core;
    let identity = &core.node.identity;
    if identity.knows_blocks(&caller) {
        identity.refuse_blocked(&caller)?;
        return Ok(caller);
    }
    let _place = Place::take(&core.identifying)?;
    let looked = core.node.control.spawn(Arc::clone(identity).look_at_blocks(caller.clone()));
    looked.await.map_err(|error| {
        tracing::error!(%error, "it could not be told who is blocked");
        Problem::new(Code::Internal, "the caller could not be checked")
    })??;
    Ok(caller)
}

/// One of the credentials being checked, for as long as it is held.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(count: &'a Cell<usize>) -> Result<Self, Problem> {
        if count.get() >= IDENTIFYING_MAX {
            let detail = "too many credentials are being checked";
            return Err(Problem::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1)));
        }
        count.set(count.get() + 1);
        Ok(Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(crate) fn check_roles(caller: Option<&Caller>, roles: &[Role]) -> Result<(), Problem> {
    if roles.is_empty() {
        return Ok(());
    }
    match caller {
        Some(caller) if roles.iter().any(|role| caller.has_role(role.as_str())) => Ok(()),
        Some(_) => Err(Problem::new(Code::Forbidden, "the caller has none of the roles needed")),
        None => Err(Problem::new(Code::Unauthenticated, "a credential is needed here")),
    }
}
