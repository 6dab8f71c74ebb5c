//! One request and the cache: what is looked for, and what is kept of the answer.

use super::{Cache, CacheConfig, CachePer, conditions::Conditions, entry::Entry, filling::Filling};
use crate::fields;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts,
};
use http_cache_semantics::CacheOptions;
use soa::Body;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};
use types::Caller;

/// How an answer came about (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Who asks whom, as far as a kept answer depends on it.
pub(crate) struct Scope<'a> {
    pub(crate) route: &'a str,
    pub(crate) service: &'a str,
    pub(crate) caller: Option<&'a Caller>,
}

/// What the cache says of a request.
pub(crate) enum Looked {
    Answer(Response<Body>),
    /// The service is to be asked, and the cache to be told.
    Ask(Asking),
}

/// A request whose answer concerns the cache.
pub(crate) enum Asking {
    /// Its answer may be kept.
    Get(Box<Get>),
    /// It changes what is kept, if it succeeds (RFC 9111, section 4.4).
    Change { cache: Arc<Cache>, key: Box<str> },
}

/// A request whose answer may be kept.
pub(crate) struct Get {
    cache: Arc<Cache>,
    key: Box<str>,
    config: CacheConfig,
    options: CacheOptions,
    /// As the service sees it, but without conditions.
    request: Parts,
    conditions: Conditions,
    stale: Option<Arc<Entry>>,
    /// It asks for a head only, which is answered by what is kept and leaves nothing to keep.
    is_head: bool,
}

impl CacheConfig {
    /// Looks for an answer to a request, whose head is as the service will see it. `None`: the
    /// cache has nothing to do with it.
    pub(crate) fn look(
        self,
        cache: &Arc<Cache>,
        scope: &Scope<'_>,
        head: &mut Parts,
        now: SystemTime,
    ) -> Option<Looked> {
        let credential = has_credential(&head.headers);
        // The service may tell apart what we cannot.
        if self.per == CachePer::Caller && credential {
            return None;
        }
        let key = self.key(scope, head);
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let change = Asking::Change { cache: Arc::clone(cache), key };
            return (!head.method.is_safe()).then(|| Looked::Ask(change));
        }
        if head.headers.contains_key(header::RANGE) || head.headers.contains_key(header::UPGRADE) {
            return None;
        }
        let own = self.per == CachePer::Caller && scope.caller.is_some();
        let conditions = Conditions::take(&mut head.headers);
        let mut request = head.clone();
        request.method = Method::GET;
        if scope.caller.is_some() || credential || head.headers.contains_key(header::COOKIE) {
            // By this the rules know that the answer was made for somebody.
            request.headers.insert(header::AUTHORIZATION, HeaderValue::from_static("-"));
        }
        let mut get = Get {
            cache: Arc::clone(cache),
            key,
            config: self,
            // Nothing is guessed: without a lifetime an answer is asked for again.
            options: CacheOptions { shared: !own, cache_heuristic: 0.0, ..CacheOptions::default() },
            request,
            conditions,
            stale: None,
            is_head: head.method == Method::HEAD,
        };
        if let Some(entry) = cache.get(&get.key).and_then(|all| all.of(&get.request.headers)) {
            if entry.is_fresh(&get.request, now) {
                cache.hits.fetch_add(1, Relaxed);
                return Some(Looked::Answer(get.answer(&entry, now, "hit")));
            }
            entry.ask(&mut head.headers);
            get.stale = Some(entry);
        }
        Some(Looked::Ask(Asking::Get(Box::new(get))))
    }

    /// The key of a target. A line break is in none of its parts.
    fn key(self, scope: &Scope<'_>, head: &Parts) -> Box<str> {
        let field = |name: &HeaderName| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let whose: &[HeaderName] = match (self.per, scope.caller) {
            (_, None) => &[],
            (CachePer::Shared, Some(_)) => &[fields::TENANT],
            // What the service is told of a caller is what it can tell him apart by.
            (CachePer::Caller, Some(_)) => {
                &[fields::TENANT, fields::KIND, fields::PRINCIPAL, fields::SESSION, fields::ROLES]
            }
        };
        let whose: Vec<&str> = whose.iter().map(field).collect();
        // Links and redirections are made of these.
        let origin = [fields::FORWARDED_PROTO, fields::FORWARDED_HOST, header::HOST];
        let origin = origin.each_ref().map(field).join(" ").to_ascii_lowercase();
        let (route, service, uri) = (scope.route, scope.service, &head.uri);
        format!("{route}\n{service}\n{origin}\n{}\n{uri}", whose.join(" ")).into()
    }
}

fn has_credential(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || headers.keys().any(|name| fields::is_credential(name.as_str()))
}

impl Asking {
    /// The answer has come; gives back the one for the client.
    pub(crate) fn answered(self, answer: Response<Body>, now: SystemTime) -> Response<Body> {
        match self {
            Self::Get(get) => get.answered(answer, now),
            Self::Change { cache, key } => {
                if answer.status().is_success() || answer.status().is_redirection() {
                    cache.forget(&key);
                }
                answer
            }
        }
    }
}

impl Get {
    fn answered(self, answer: Response<Body>, now: SystemTime) -> Response<Body> {
        if let Some(stale) = &self.stale
            && answer.status() == StatusCode::NOT_MODIFIED
        {
            self.cache.revalidated.fetch_add(1, Relaxed);
            let refreshed = stale.refreshed(&self.request, answer.headers(), now, self.options);
            let Some(refreshed) = refreshed else {
                self.cache.forget(&self.key);
                return self.answer(stale, now, "fwd=stale; fwd-status=304");
            };
            let answer = self.answer(&refreshed, now, "hit; fwd=stale; fwd-status=304");
            self.cache.keep(self.key, refreshed);
            return answer;
        }
        self.cache.misses.fetch_add(1, Relaxed);
        let forwarded = if self.stale.is_some() { "fwd=stale" } else { "fwd=miss" };
        let (mut parts, body) = answer.into_parts();
        let entry = Entry::new(&self.request, &parts, now, self.options);
        let Some(entry) = entry.filter(|_| !self.is_head) else {
            // What was kept is no longer what the service says; unless it says nothing.
            if self.stale.is_some() && !parts.status.is_server_error() {
                self.cache.forget(&self.key);
            }
            parts.headers.append(CACHE_STATUS, status(forwarded));
            return Response::from_parts(parts, body);
        };
        parts.headers.append(CACHE_STATUS, status(&format!("{forwarded}; stored")));
        let bytes_max = self.config.body_bytes_max;
        let body = Filling::pass(body, bytes_max, self.cache, self.key, entry);
        Response::from_parts(parts, body)
    }

    /// What is kept, as an answer.
    fn answer(&self, entry: &Entry, now: SystemTime, how: &str) -> Response<Body> {
        let known = self.conditions.are_known(&entry.headers);
        let body = if known { Body::Empty } else { Body::from(entry.body.clone()) };
        let mut answer = Response::new(body);
        *answer.headers_mut() = entry.headers.clone();
        if known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer.headers_mut().remove(header::CONTENT_LENGTH);
        } else {
            *answer.status_mut() = entry.status;
        }
        answer.headers_mut().insert(header::AGE, entry.age(now).as_secs().into());
        answer.headers_mut().append(CACHE_STATUS, status(how));
        answer
    }
}

fn status(how: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("crosstown; {how}")).expect("it is visible ASCII")
}
