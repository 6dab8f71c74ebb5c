//! What is kept of an answer, and which requests it answers.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request, response};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Answers of one target that are kept at once; the oldest goes first.
const VARIANTS_MAX: usize = 8;
/// What an entry takes besides its body and its fields, the fields of its request included, about.
const OVERHEAD: usize = 2048;

/// A kept answer.
#[derive(Debug)]
pub(super) struct Entry {
    policy: CachePolicy,
    /// The fields of the request that decide whether it answers another one, each with its values.
    vary: Box<[(HeaderName, Vec<HeaderValue>)]>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Entry {
    /// What is to be kept of an answer, without its body; none if it may not be, or if it could
    /// never be given again.
    pub(super) fn new(
        request: &request::Parts,
        answer: &response::Parts,
        now: SystemTime,
        options: CacheOptions,
    ) -> Option<Self> {
        let policy = CachePolicy::new_options(request, answer, now, options);
        let headers = &answer.headers;
        let useful = !policy.time_to_live(now).is_zero()
            || headers.contains_key(header::ETAG)
            || headers.contains_key(header::LAST_MODIFIED);
        // A cookie is for one client; half an answer is none.
        let whole = answer.status != StatusCode::PARTIAL_CONTENT;
        let may = policy.is_storable() && whole && !headers.contains_key(header::SET_COOKIE);
        if !(may && useful) {
            return None;
        }
        let vary = varying(headers)?;
        let vary = vary.into_iter().map(|name| (name.clone(), values(&request.headers, &name)));
        Some(Self {
            policy,
            vary: vary.collect(),
            status: answer.status,
            headers: headers.clone(),
            body: Bytes::new(),
        })
    }

    /// Whether it answers a request with these fields.
    fn answers(&self, headers: &HeaderMap) -> bool {
        self.vary.iter().all(|(name, held)| values(headers, name) == *held)
    }

    /// Whether it may be given without asking.
    pub(super) fn is_fresh(&self, request: &request::Parts, now: SystemTime) -> bool {
        matches!(self.policy.before_request(request, now), BeforeRequest::Fresh(_))
    }

    pub(super) fn age(&self, now: SystemTime) -> Duration {
        self.policy.age(now)
    }

    /// Asks the service only for what has changed.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        for (of, condition) in [
            (header::ETAG, header::IF_NONE_MATCH),
            (header::LAST_MODIFIED, header::IF_MODIFIED_SINCE),
        ] {
            if let Some(value) = self.headers.get(of) {
                headers.insert(condition, value.clone());
            }
        }
    }

    /// The same answer, of which the service said that it has not changed (RFC 9111, section
    /// 4.3.4); none if it may no longer be kept.
    pub(super) fn refreshed(
        &self,
        request: &request::Parts,
        said: &HeaderMap,
        now: SystemTime,
        options: CacheOptions,
    ) -> Option<Self> {
        let mut headers = self.headers.clone();
        for name in said.keys() {
            if matches!(
                *name,
                header::CONTENT_LENGTH | header::CONTENT_ENCODING | header::CONTENT_RANGE
            ) {
                continue;
            }
            headers.remove(name);
            for value in said.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        let (mut parts, ()) = http::Response::new(()).into_parts();
        (parts.status, parts.headers) = (self.status, headers);
        let entry = Self::new(request, &parts, now, options)?;
        Some(Self { body: self.body.clone(), ..entry })
    }

    fn bytes(&self) -> usize {
        let fields = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        // The policy has a copy of the fields.
        OVERHEAD + self.body.len() + 2 * fields.sum::<usize>()
    }
}

fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

/// The fields named by `Vary`; none if no other request can be told to be the same.
fn varying(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let named = headers.get_all(header::VARY).iter().map(HeaderValue::as_bytes);
    let named = named.flat_map(|value| value.split(|byte| *byte == b','));
    named
        .map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .map(|name| name.filter(|n| n != "*"))
        .collect()
}

/// The kept answers of one target.
#[derive(Debug)]
pub(super) struct Variants(Vec<Arc<Entry>>);

impl Variants {
    /// `held` with one more, instead of those that answer the same requests.
    pub(super) fn with(held: Option<&Self>, entry: Entry) -> Self {
        let mut all = vec![Arc::new(entry)];
        if let Some(Self(held)) = held {
            let others = held.iter().filter(|other| other.vary != all[0].vary);
            let others: Vec<_> = others.take(VARIANTS_MAX - 1).cloned().collect();
            all.extend(others);
        }
        Self(all)
    }

    /// The one that answers a request with these fields.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Arc<Entry>> {
        self.0.iter().find(|entry| entry.answers(headers)).cloned()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|entry| entry.bytes()).sum()
    }
}
