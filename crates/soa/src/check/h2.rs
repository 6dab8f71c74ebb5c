//! What is asked by HTTP/2, on a connection that ends with the answer.

use super::judge;
use crate::{grpc, instance::Instance};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, uri::Scheme};
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

/// Asks the health service of gRPC
/// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>) about one of its services;
/// about the server, if that has no name.
pub(super) async fn serves(stream: Stream, instance: &Instance, service: &str) -> io::Result<()> {
    let mut request = Request::new(Full::from(question(service)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target(instance, "/grpc.health.v1.Health/Check")?;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let (head, (body, trailers)) = exchange(stream, request).await?.into_parts();
    let status = trailers.get(grpc::STATUS).or(head.headers.get(grpc::STATUS));
    if status.is_none_or(|status| status != "0") {
        return Err(io::Error::other(format!("it answered `grpc-status` {status:?}")));
    }
    if body == SERVING { Ok(()) } else { Err(io::Error::other("it says that it does not serve")) }
}

/// A message of two bytes, not compressed: its field 1 is `SERVING`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 1];

/// A message, not compressed, whose field 1 is a name; nothing if that is empty.
fn question(service: &str) -> Vec<u8> {
    let length = u8::try_from(service.len()).unwrap_or(u8::MAX);
    let message = match length {
        0 => Vec::new(),
        length => [&[0x0a, length], service.as_bytes()].concat(),
    };
    let size = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &size, &message].concat()
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
