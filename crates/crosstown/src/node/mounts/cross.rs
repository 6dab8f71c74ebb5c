//! Requests from pages of other origins (Fetch Standard, section 3.2).

use crate::node::mounts::refusal;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use protocol::{Code, Problem};
use soa::Body;

/// The page that asks, if a page does.
#[derive(Debug)]
pub(super) struct Cross(Option<HeaderValue>);

impl Cross {
    /// Whether the page may ask. `origins` are those that may, none: any, since no credential
    /// travels by itself with what is asked here.
    ///
    /// # Errors
    /// What is answered at once: a refusal, or what a browser wants to know beforehand.
    pub(super) fn check(
        origins: &[String],
        method: &Method,
        headers: &HeaderMap,
        methods: &'static str,
    ) -> Result<Self, Box<Response<Body>>> {
        let origin = headers.get(header::ORIGIN).cloned();
        if let Some(origin) = &origin
            && !origins.is_empty()
            && !origins.iter().any(|allowed| origin == allowed.as_str())
        {
            let problem = Problem::new(Code::Forbidden, "sockets are not open to this origin");
            return Err(Box::new(refusal(&problem)));
        }
        let cross = Self(origin);
        if *method != Method::OPTIONS {
            return Ok(cross);
        }
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let fields = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        for (name, value) in fields {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Err(Box::new(cross.mark(answer)))
    }

    /// Lets the page read the answer.
    pub(super) fn mark(self, mut answer: Response<Body>) -> Response<Body> {
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.0 {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origins: &[&str], origin: Option<&str>, method: &Method) -> (u16, Option<String>) {
        let origins: Vec<_> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        let answer = match Cross::check(&origins, method, &headers, "POST") {
            Ok(cross) => cross.mark(Response::new(Body::Empty)),
            Err(answer) => *answer,
        };
        let allowed = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        let allowed = allowed.map(|origin| origin.to_str().unwrap().to_owned());
        (answer.status().as_u16(), allowed)
    }

    #[test]
    fn pages_of_allowed_origins_may_read() {
        let here = Some("https://here.example");
        let allowed = here.map(str::to_owned);
        assert_eq!(check(&[], here, &Method::POST), (200, allowed.clone()));
        assert_eq!(check(&[], here, &Method::OPTIONS), (204, allowed.clone()));
        assert_eq!(check(&["https://here.example"], here, &Method::POST), (200, allowed));
        assert_eq!(check(&["https://there.example"], here, &Method::POST), (403, None));
        assert_eq!(check(&["https://there.example"], here, &Method::OPTIONS), (403, None));
        assert_eq!(check(&["https://there.example"], None, &Method::POST), (200, None));
    }
}
