//! Copies of requests for a service that is tried out: its answers reach nobody.

use crate::{backend::named, core::Core};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header, request::Parts};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use soa::{Added, Answered, Body, BoxError, Priority, Service, Services, Terms};
use std::{rc::Rc, sync::Arc};

/// Tells the service that its answer reaches nobody.
const MIRRORED: HeaderName = HeaderName::from_static("x-crosstown-mirrored");
/// Copies under way on one core; beyond it none are made, for they may not hinder the originals.
const UNDER_WAY_MAX: usize = 256;
/// Bytes of an answer that are read so that its connection can be used again.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// Where copies of a route's requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The service that gets the copies.
    pub service: String,
    /// Requests of a hundred that are copied, taken by chance. Default 100.
    #[serde(default = "percent")]
    pub percent: u32,
    /// Bytes of a body that are kept for the copy; a request with more, or of unknown length, is
    /// not copied. Default 64 KiB, at most 1 MiB.
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: u64,
}

fn percent() -> u32 {
    100
}

fn body_bytes_max() -> u64 {
    64 * 1024
}

/// A [`MirrorConfig`], ready to be used.
#[derive(Debug)]
pub(crate) struct Mirror {
    service: Arc<Service>,
    percent: u32,
    body_bytes_max: u64,
}

impl Mirror {
    /// # Errors
    /// What to change.
    pub(crate) fn compile(config: &MirrorConfig, services: &Services) -> Result<Self, String> {
        let MirrorConfig { service, percent, body_bytes_max } = config;
        if !(1..=100).contains(percent) {
            return Err("`mirror.percent` must be 1 to 100".into());
        }
        if *body_bytes_max > 1024 * 1024 {
            return Err("`mirror.body_bytes_max` must be 1 MiB at most".into());
        }
        let service = Arc::clone(named(services, service)?);
        Ok(Self { service, percent: *percent, body_bytes_max: *body_bytes_max })
    }

    /// Sends a copy if this request is to have one, and gives back its body.
    ///
    /// # Errors
    /// What the body broke with.
    pub(crate) async fn copy(
        &self,
        core: &Rc<Core>,
        head: &Parts,
        body: Body,
    ) -> Result<Body, BoxError> {
        use http_body::Body as _;
        let fits = body.size_hint().exact().is_some_and(|length| length <= self.body_bytes_max);
        let taken = (core.random() >> 32) % 100 < u64::from(self.percent);
        if !fits || !taken || head.headers.contains_key(header::UPGRADE) {
            return Ok(body);
        }
        let Some(place) = Place::take(core) else { return Ok(body) };
        let bytes = body.whole().await?;
        let mut head = Box::new(head.clone());
        head.headers.insert(MIRRORED, HeaderValue::from_static("1"));
        tokio::task::spawn_local(send(place, Arc::clone(&self.service), head, bytes.clone()));
        Ok(Body::from(bytes))
    }
}

async fn send(place: Place, service: Arc<Service>, head: Box<Parts>, bytes: Bytes) {
    let timeout = service.config().response_timeout;
    let terms = Terms {
        key: None,
        bound: None,
        base: 0,
        repeatable: Some(false),
        // It never takes a place that an original could have.
        priority: Priority::Low,
        answered: Answered::default(),
        timeout,
        added: Added::default(),
    };
    let whole = async {
        let late = std::future::pending();
        let reply = place.0.pool.call(&service, head, Body::from(bytes), &terms, late).await;
        if let Ok(soa::Reply::Answer(answer)) = reply {
            let body = http_body_util::Limited::new(answer.into_body(), DRAIN_BYTES_MAX);
            let _ = body.collect().await;
        }
    };
    if tokio::time::timeout(timeout, whole).await.is_err() {
        tracing::debug!(service = service.name(), "a copy was not answered in time");
    }
}

/// One of the copies under way on a core.
struct Place(Rc<Core>);

impl Place {
    fn take(core: &Rc<Core>) -> Option<Self> {
        if core.mirrored.get() >= UNDER_WAY_MAX {
            return None;
        }
        core.mirrored.set(core.mirrored.get() + 1);
        Some(Self(Rc::clone(core)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mirrored.set(self.0.mirrored.get() - 1);
    }
}
