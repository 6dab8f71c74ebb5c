//! Cross-origin requests (the Fetch standard, section 3.2, "HTTP CORS protocol").

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use soa::Body;
use std::time::Duration;

/// Which pages of other origins may use a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// Origins such as `https://app.example.org`, exactly; or only `*`, for any.
    pub origins: Vec<String>,
    /// Methods that they may use. Default: those of the route.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Header fields that they may send besides the safe ones. Default: `authorization` and
    /// `content-type`.
    #[serde(default = "headers")]
    pub headers: Vec<String>,
    /// Header fields of answers that they may read besides the safe ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether browsers send cookies along; not with `*`. Default false.
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers remember this. Default `10m`.
    #[serde(default = "max_age", with = "types::duration")]
    pub max_age: Duration,
}

fn headers() -> Vec<String> {
    vec!["authorization".into(), "content-type".into()]
}

fn max_age() -> Duration {
    Duration::from_secs(600)
}

/// A [`CorsConfig`], ready to answer.
#[derive(Debug)]
pub(crate) struct Cors {
    /// `None`: any.
    origins: Option<Box<[HeaderValue]>>,
    methods: HeaderValue,
    headers: HeaderValue,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// What an answer tells the browser of a permitted origin.
#[derive(Debug)]
pub(crate) struct Granted<'a> {
    cors: &'a Cors,
    origin: Option<HeaderValue>,
}

impl Cors {
    /// `methods`: those of the route.
    ///
    /// # Errors
    /// What to change.
    pub(crate) fn compile(config: &CorsConfig, methods: &[Method]) -> Result<Self, String> {
        let any = config.origins == ["*"];
        if any && config.credentials {
            return Err("`cors.credentials` needs `cors.origins` other than `*`".into());
        }
        if config.origins.is_empty() {
            return Err("`cors.origins` names no origin".into());
        }
        let origin = |text: &String| {
            let has_form = text.split_once("://").is_some_and(|(scheme, rest)| {
                !scheme.is_empty() && http1::is_authority(rest.as_bytes())
            });
            let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
            let value = HeaderValue::from_str(text).ok().filter(|_| has_form && lower);
            value.ok_or_else(|| format!("`{text}` is not an origin like `https://app.example.org`"))
        };
        let list = |names: &[String]| {
            for name in names {
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("`{name}` is not the name of a header field"))?;
            }
            HeaderValue::from_str(&names.join(", ")).map_err(|error| error.to_string())
        };
        for method in &config.methods {
            Method::from_bytes(method.as_bytes())
                .map_err(|_| format!("`{method}` is not a method"))?;
        }
        let methods = match (config.methods.as_slice(), methods) {
            ([], []) => "GET, HEAD, POST, PUT, PATCH, DELETE".to_owned(),
            ([], methods) => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
            (methods, _) => methods.join(", "),
        };
        let origins = if any {
            None
        } else {
            Some(config.origins.iter().map(origin).collect::<Result<_, _>>()?)
        };
        Ok(Self {
            origins,
            methods: HeaderValue::from_str(&methods).map_err(|error| error.to_string())?,
            headers: list(&config.headers)?,
            expose: if config.expose.is_empty() { None } else { Some(list(&config.expose)?) },
            credentials: config.credentials,
            max_age: config.max_age.as_secs().into(),
        })
    }

    /// What the answer to this request is to say.
    pub(crate) fn grant(&self, headers: &HeaderMap) -> Granted<'_> {
        let asked = headers.get(header::ORIGIN);
        let origin = asked
            .filter(|asked| self.origins.as_ref().is_none_or(|origins| origins.contains(asked)));
        Granted { cors: self, origin: origin.cloned() }
    }

    /// The answer to a browser that asks before it sends (`OPTIONS`); it says nothing to an
    /// origin that is not permitted.
    pub(crate) fn preflight(&self, headers: &HeaderMap) -> Response<Body> {
        let granted = self.grant(headers);
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if granted.origin.is_some() {
            let told = answer.headers_mut();
            told.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            told.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            told.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        }
        granted.mark(answer.headers_mut());
        answer
    }
}

impl Granted<'_> {
    /// Replaces what the service says of other origins.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        for name in [
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            headers.remove(name);
        }
        if self.cors.origins.is_some() {
            // Caches keep the answers to several origins apart.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = &self.origin else { return };
        let told = match self.cors.origins {
            None => HeaderValue::from_static("*"),
            Some(_) => origin.clone(),
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, told);
        if self.cors.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.cors.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

/// The method that a browser asks leave for, if that is what the request is.
pub(crate) fn preflight_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Cors, String> {
        Cors::compile(&toml::from_str(text).unwrap(), &[])
    }

    #[test]
    fn only_origins_are_taken() {
        for good in ["https://a.example", "http://localhost:3000", "*", "tauri://localhost"] {
            assert!(compile(&format!("origins = [\"{good}\"]")).is_ok(), "{good}");
        }
        for bad in ["a.example", "https://a.example/", "https://*.a", "https://A.example", "://a"] {
            assert!(compile(&format!("origins = [\"{bad}\"]")).is_err(), "{bad}");
        }
        assert!(compile("origins = []").is_err());
        assert!(compile("origins = [\"*\"]\ncredentials = true").is_err());
        assert!(compile("origins = [\"*\"]\nheaders = [\"a b\"]").is_err());
        assert!(compile("origins = [\"*\"]\nmethods = [\"G T\"]").is_err());
    }
}
