//! Streams for clients without a WebSocket, and the requests by which such clients speak.

use crate::node::{
    mounts::{cross::Cross, refusal},
    peers::Peers,
};
use bytes::Bytes;
use gateway::{LocalBoxFuture, Mount};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::{
    Code, Problem,
    client::{EmulationRequest, Encoding},
};
use realtime::{CoreSockets, Form};
use soa::{Body, BoxError};
use std::{
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{runtime::Handle, sync::mpsc};
use types::Caller;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Server-sent events: `GET` with the commands in `cf_connect`, or `POST`.
    Events,
    /// An endless answer to a `POST`.
    Http,
}

/// What the node says.
pub(super) struct Streams {
    pub(super) sockets: CoreSockets,
    pub(super) kind: Kind,
}

impl Mount for Streams {
    fn call(&self, request: Request<Body>) -> LocalBoxFuture<Response<Body>> {
        let (sockets, kind) = (self.sockets.clone(), self.kind);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let methods = match kind {
                Kind::Events => "GET, POST",
                Kind::Http => "POST",
            };
            let origins = &sockets.config().origins;
            let cross = match Cross::check(origins, &head.method, &head.headers, methods) {
                Ok(cross) => cross,
                Err(answer) => return *answer,
            };
            let answer = match first(kind, &head, body, &sockets).await {
                Ok((form, first)) => {
                    open(sockets, form, first, &head).unwrap_or_else(|problem| refusal(&problem))
                }
                Err(problem) => refusal(&problem),
            };
            cross.mark(answer)
        })
    }
}

/// How the client wants to be told, and the commands that came along.
async fn first(
    kind: Kind,
    head: &request::Parts,
    body: Body,
    sockets: &CoreSockets,
) -> Result<(Form, Bytes), Problem> {
    if kind == Kind::Events && head.method == Method::GET {
        let query = head.uri.query().unwrap_or_default();
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        let commands = pairs.find(|(name, _)| name == "cf_connect");
        let missing = || Problem::new(Code::BadRequest, "`cf_connect` is missing");
        let (_, commands) = commands.ok_or_else(missing)?;
        return Ok((Form::Events, commands.into_owned().into()));
    }
    if head.method != Method::POST {
        let all = [Method::GET, Method::POST];
        let allow = match kind {
            Kind::Events => &all[..],
            Kind::Http => &all[1..],
        };
        return Err(Problem::method_not_allowed("a stream is asked for by POST", allow));
    }
    let form = match (kind, encoding(&head.headers)) {
        (Kind::Events, _) => Form::Events,
        (Kind::Http, Encoding::Json) => Form::Lines,
        (Kind::Http, Encoding::Protobuf) => Form::Binary,
    };
    Ok((form, take(body, sockets.config().message_bytes_max).await?))
}

fn open(
    sockets: CoreSockets,
    form: Form,
    first: Bytes,
    head: &request::Parts,
) -> Result<Response<Body>, Problem> {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = head.extensions.get().copied().unwrap_or(unknown);
    let caller = head.extensions.get::<Arc<Caller>>().cloned();
    let stream = Stream(sockets.stream(form, first, caller, ip)?);
    let mut answer = Response::new(Body::from(stream.boxed_unsync()));
    let fields = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that collect an answer before they pass it on are told not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}

/// A body that ends with its connection.
struct Stream(mpsc::Receiver<Bytes>);

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// What the clients of streams say.
pub(super) struct Emulation {
    pub(super) sockets: CoreSockets,
    /// `None`: there is one node.
    pub(super) peers: Option<Arc<Peers>>,
    pub(super) control: Handle,
}

/// Bytes of a request: its commands may be twice as long as a JSON string in a JSON document.
pub(super) fn emulation_bytes_max(message_bytes_max: usize) -> usize {
    2 * message_bytes_max + 1024
}

impl Mount for Emulation {
    fn call(&self, request: Request<Body>) -> LocalBoxFuture<Response<Body>> {
        let (sockets, peers) = (self.sockets.clone(), self.peers.clone());
        let control = self.control.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let origins = &sockets.config().origins;
            let cross = match Cross::check(origins, &head.method, &head.headers, "POST") {
                Ok(cross) => cross,
                Err(answer) => return *answer,
            };
            let answer = match hand_on(&sockets, peers, control, &head, body).await {
                Ok(()) => {
                    let mut answer = Response::new(Body::Empty);
                    *answer.status_mut() = StatusCode::NO_CONTENT;
                    answer
                }
                Err(problem) => refusal(&problem),
            };
            cross.mark(answer)
        })
    }
}

async fn hand_on(
    sockets: &CoreSockets,
    peers: Option<Arc<Peers>>,
    control: Handle,
    head: &request::Parts,
    body: Body,
) -> Result<(), Problem> {
    if head.method != Method::POST {
        return Err(Problem::method_not_allowed("commands come by POST", &[Method::POST]));
    }
    let body = take(body, emulation_bytes_max(sockets.config().message_bytes_max)).await?;
    let request = EmulationRequest::read(encoding(&head.headers), &body).map_err(|_| {
        Problem::new(Code::BadRequest, "the body is not `session`, `node` and `data`")
    })?;
    let EmulationRequest { session, node, data } = request;
    let commands = Bytes::from(data.0);
    if node == sockets.node() {
        return sockets.emulate(&session, commands).await;
    }
    let Some(peers) = peers else {
        return Err(Problem::new(Code::NotFound, "there is no such node"));
    };
    let asked = control.spawn(async move { peers.emulate(&node, &session, &commands).await });
    asked.await.unwrap_or_else(|error| {
        tracing::error!(%error, "commands for another node are lost");
        Err(Problem::new(Code::Internal, "the commands are not passed on"))
    })
}

/// The encoding that a body says it is in.
fn encoding(headers: &HeaderMap) -> Encoding {
    let binary = |value: &HeaderValue| value.as_bytes().starts_with(b"application/octet-stream");
    if headers.get(header::CONTENT_TYPE).is_some_and(binary) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    }
}

/// A whole body of at most `most` bytes.
async fn take(body: Body, most: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Code::BodyTooLarge, format!("at most {most} bytes are taken")))
        }
        Err(_) => Err(Problem::new(Code::BadRequest, "the body did not come whole")),
    }
}
