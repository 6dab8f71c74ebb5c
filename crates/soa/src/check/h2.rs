//! What is asked by HTTP/2, on a connection that ends with the answer.

use super::judge;
use crate::instance::Instance;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use transport::Stream;

/// Bytes of an answer that are read.
const BYTES_MAX: usize = 64 * 1024;

/// Asks for a path.
pub(super) async fn get(stream: Stream, instance: &Instance, path: &str) -> io::Result<()> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = target(instance, path)?;
    let (head, _) = exchange(stream, request).await?.into_parts();
    judge(head.status)
}

fn target(instance: &Instance, path: &str) -> io::Result<Uri> {
    let scheme = if instance.tls_name.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let target = Uri::builder().scheme(scheme).authority(instance.authority());
    target.path_and_query(path).build().map_err(io::Error::other)
}

/// One request, its whole answer, and the fields behind that.
async fn exchange(
    stream: Stream,
    mut request: Request<Full<Bytes>>,
) -> io::Result<Response<(Bytes, HeaderMap)>> {
    let agent = HeaderValue::from_static("crosstown-health");
    request.headers_mut().insert(header::USER_AGENT, agent);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let answer = async move {
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BYTES_MAX).collect().await.map_err(io::Error::other)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Response::from_parts(head, (body.to_bytes(), trailers)))
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        ended = connection => Err(match ended {
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => io::Error::other(error),
        }),
    }
}
