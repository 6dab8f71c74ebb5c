//! Handlers of the product's own, beside the routes to services.

use crate::config::Auth;
use http::{Request, Response};
use soa::{Body, Priority};
use std::{future::Future, pin::Pin, rc::Rc, sync::Arc};

/// A core of the node, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreId(pub usize);

/// A future that stays on its core.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A handler that lives on one core.
///
/// Among the request's extensions it finds:
/// - `std::net::IpAddr`: the client's address;
/// - `Arc<types::Caller>`: the verified caller, if there is one; always with
///   [`Auth::Required`];
/// - [`crate::Upgrade`], if the request asks for another protocol: the socket, after an answer
///   of 101.
///
/// Header fields that claim an identity are gone; the credential is not.
pub trait Mount {
    /// Answers a request. Dropped when the client goes away.
    fn call(&self, request: Request<Body>) -> LocalBoxFuture<Response<Body>>;
}

/// Where a handler is reached.
pub struct MountPoint {
    /// A path: all below it if it ends in `/`, else exactly it. Goes before every route.
    pub prefix: String,
    /// Its name, for limits and analytics.
    pub name: &'static str,
    /// Who may use it.
    pub auth: Auth,
    /// Bytes of a request's declared body; beyond it `413`. A handler that takes bodies of
    /// unknown length bounds them itself.
    pub body_bytes_max: u64,
    /// Whether its requests go before others when a core cannot serve all; none: they are never
    /// refused for that.
    pub priority: Option<Priority>,
    /// The handler.
    pub mount: Rc<dyn Mount>,
}

impl std::fmt::Debug for MountPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountPoint")
            .field("prefix", &self.prefix)
            .field("name", &self.name)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl MountPoint {
    pub(crate) fn takes(&self, path: &str) -> bool {
        takes(&self.prefix, path)
    }
}

/// Whether what is reached at `prefix` takes this path.
pub(crate) fn takes(prefix: &str, path: &str) -> bool {
    if prefix.ends_with('/') { path.starts_with(prefix) } else { path == prefix }
}

/// Makes the handlers of a core; called once on each core's thread, inside its runtime.
pub type MakeMounts = Arc<dyn Fn(CoreId) -> Vec<MountPoint> + Send + Sync>;
