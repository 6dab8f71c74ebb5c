//! Calls to services of realms, through Crosstown.

use crate::{Answer, Client, Error};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Serialize, de::DeserializeOwned};

const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-crosstown-on-behalf-of");
const VERSION: HeaderName = HeaderName::from_static("x-crosstown-version");
const TAGS: HeaderName = HeaderName::from_static("x-crosstown-tags");

/// A service of a realm, as whoever holds the [`Client`] calls it. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    client: Client,
    prefix: String,
    fields: HeaderMap,
}

impl Client {
    /// The service `name` of `realm`; the client's credential speaks for a realm that may call it.
    #[must_use]
    pub fn service(&self, realm: &str, name: &str) -> Service {
        Service {
            client: self.clone(),
            prefix: format!("/crosstown/v1/call/{realm}/{name}"),
            fields: HeaderMap::new(),
        }
    }
}

impl Service {
    /// A certain version of it, such as `2` or `^2.1`.
    #[must_use]
    pub fn version(&self, version: &str) -> Self {
        self.with(VERSION, version)
    }

    /// One that has all of these tags.
    #[must_use]
    pub fn tagged(&self, tags: &[&str]) -> Self {
        self.with(TAGS, &tags.join(","))
    }

    /// Calls for the user whose credential this is: the user is the caller then.
    #[must_use]
    pub fn on_behalf_of(&self, credential: &str) -> Self {
        let mut service = self.with(ON_BEHALF_OF, &format!("Bearer {credential}"));
        if let Some(value) = service.fields.get_mut(ON_BEHALF_OF) {
            value.set_sensitive(true);
        }
        service
    }

    /// What cannot be written in a header field names nothing there is, and is refused as that.
    fn with(&self, name: HeaderName, value: &str) -> Self {
        let mut service = self.clone();
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static("?"));
        service.fields.insert(name, value);
        service
    }

    /// Sends a request and returns the answer, whatever its status; a path begins with `/`.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let path = format!("{}{path}", self.prefix);
        self.client.call_with(method, &path, &self.fields, body).await
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        crate::read(self.call(Method::GET, path, None).await?)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        crate::read(self.call(Method::POST, path, Some(crate::json(body)?)).await?)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        crate::accepted(self.call(Method::DELETE, path, None).await?).map(|_| ())
    }
}
