//! Fetches issuers' JWK sets by HTTP and HTTPS.

use crate::http_client::{HttpClient, http_client};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use std::time::Duration;
use store::BoxError;
use traffic_cop::identity::issuer::FetchKeys;

const BYTES_MAX: usize = 1024 * 1024;
const WITHIN: Duration = Duration::from_secs(5);

/// A client that follows no redirects.
pub(crate) struct KeyServer {
    client: HttpClient<Empty<Bytes>>,
}

impl KeyServer {
    /// A client that trusts the machine's certificates.
    ///
    /// # Errors
    /// A sentence, if there are none.
    pub(crate) fn new() -> Result<Self, String> {
        Ok(Self { client: http_client()? })
    }
}

#[async_trait]
impl FetchKeys for KeyServer {
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, BoxError> {
        let uri: Uri = url.parse()?;
        let request = Request::get(uri).body(Empty::new())?;
        let answer = async {
            let response = self.client.request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(BoxError::from(format!(
                    "the key server answers {}",
                    response.status()
                )));
            }
            let body = Limited::new(response.into_body(), BYTES_MAX).collect().await?;
            Ok(body.to_bytes().to_vec())
        };
        tokio::time::timeout(WITHIN, answer).await.map_err(|_| "the key server does not answer")?
    }
}
