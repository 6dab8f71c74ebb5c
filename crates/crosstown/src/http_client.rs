//! What a node asks others by HTTP and HTTPS, by the certificates that the machine trusts.

use bytes::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// A client that follows no redirects.
pub(crate) type HttpClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A client for requests with bodies `B`.
///
/// # Errors
/// A sentence, if the machine has no certificates.
pub(crate) fn http_client<B>() -> Result<HttpClient<B>, String>
where
    B: http_body::Body<Data = Bytes> + Send,
{
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("cannot read the machine's certificates: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}
