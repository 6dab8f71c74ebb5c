//! The HTTP/1 side of a connection: one request after the other, each answered before the next
//! is looked at.

mod inbound;
mod upgrade;

pub use upgrade::{Socket, Upgrade};

use crate::{
    admission::Permit,
    connection::{Conn, Patience},
    exchange,
    h1::inbound::{Inbound, Next, RequestBody},
    ticket::Outgoing,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use http1::{Bounds, Framed, RequestHead, SendError, Sending};
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};
use transport::Stream;

/// Serves a connection until it ends; `first` was already read from it.
pub(crate) async fn serve(
    conn: &Rc<Conn>,
    stream: Stream,
    first: Vec<u8>,
    patience: Patience,
    bounds: Bounds,
    permit: Permit,
) -> io::Result<()> {
    let inbound = Rc::new(Inbound::new(stream, first, conn, patience, bounds));
    loop {
        let next = poll_fn(|cx| {
            conn.watch.register(cx.waker());
            if conn.watch.is_cut() || (conn.is_draining() && inbound.is_between()) {
                return Poll::Ready(Next::End);
            }
            inbound.poll_next(cx)
        })
        .await;
        match next {
            Next::End => {
                inbound.part();
                return Ok(());
            }
            Next::Refused(refusal) => {
                let answer = exchange::refuse(conn, refusal);
                send(conn, &inbound, answer, &Asked::REFUSED).await?;
                return inbound.close().await;
            }
            Next::Request(request) => {
                let asked = Asked::of(&request);
                let Some(answer) = answer(conn, &inbound, request, &asked).await else {
                    return Ok(());
                };
                let Answered { response, upgrade } = answer;
                let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                let keeps = send(conn, &inbound, response, &asked).await?;
                if let Some(upgrade) = upgrade.filter(|_| switches) {
                    let Some(inbound) = Rc::into_inner(inbound) else { return Ok(()) };
                    let (stream, early) = inbound.into_socket();
                    // Nobody takes it: it is closed.
                    let _ = upgrade.send(Socket { stream, early, permit });
                    return Ok(());
                }
                if !keeps || !inbound.is_body_over() {
                    return inbound.close().await;
                }
            }
        }
    }
}

/// What has to be known of a request to answer it.
struct Asked {
    method: Method,
    is_old: bool,
    keeps_alive: bool,
    switches: bool,
}

impl Asked {
    const REFUSED: Self =
        Self { method: Method::GET, is_old: false, keeps_alive: false, switches: false };

    fn of(request: &RequestHead) -> Self {
        Self {
            method: request.parts.method.clone(),
            is_old: request.parts.version == http::Version::HTTP_10,
            keeps_alive: request.keeps_alive,
            switches: request.switches,
        }
    }
}

struct Answered {
    response: Response<Outgoing>,
    upgrade: Option<upgrade::Sender>,
}

/// The answer to a request, or nothing if its client has left.
async fn answer(
    conn: &Rc<Conn>,
    inbound: &Rc<Inbound>,
    request: RequestHead,
    asked: &Asked,
) -> Option<Answered> {
    let RequestHead { mut parts, body, expects_continue, .. } = request;
    let upgrade = asked.switches.then(|| {
        let (sender, receiver) = upgrade::pair();
        parts.extensions.insert(receiver);
        sender
    });
    let body = RequestBody::begin(inbound, body, expects_continue);
    let mut served = pin!(exchange::serve(Rc::clone(conn), parts, body));
    let response = poll_fn(|cx| {
        conn.watch.register(cx.waker());
        if conn.watch.is_cut() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(response) = served.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        // A client that has left is owed no answer.
        inbound.poll_gone(cx).map(|()| None)
    })
    .await?;
    Some(Answered { response, upgrade })
}

/// Writes an answer. Whether the connection may go on.
async fn send(
    conn: &Conn,
    inbound: &Inbound,
    response: Response<Outgoing>,
    asked: &Asked,
) -> io::Result<bool> {
    let (mut parts, body) = response.into_parts();
    let framed = framed(parts.status, &parts.headers, &body, asked);
    // What the client still sends of a body that nobody wants cannot be told from a request.
    let keeps = asked.keeps_alive
        && framed != Framed::Close
        && !conn.is_draining()
        && inbound.drain()
        && !says_close(&parts.headers);
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        if !keeps {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else if asked.is_old {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
    }
    if framed == Framed::Bodiless
        && let Some(length @ 1..) = body.size_hint().exact()
    {
        // As if it had been asked for.
        parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    if !parts.headers.contains_key(header::DATE) {
        let now = UNIX_EPOCH + Duration::from_millis(conn.core.node.clock.now().0);
        let now = httpdate::fmt_http_date(now);
        parts.headers.extend(HeaderValue::try_from(now).ok().map(|now| (header::DATE, now)));
    }
    let mut sending = Sending::new(framed, body, |out, body| {
        let ticket = body.ticket();
        let is_replaced = |name: &HeaderName| ticket.sets(name);
        http1::response_head(out, parts.status, &parts.headers, framed, is_replaced, |out| {
            ticket.fields(|name, value| http1::field(out, name.as_str(), value));
        });
    });
    http1::give_back(parts.headers);
    poll_fn(|cx| {
        conn.watch.register(cx.waker());
        if conn.watch.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let polled = inbound.poll_send(&mut sending, cx);
        if polled.is_pending() && inbound.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        polled.map_err(|error| match error {
            SendError::Io(error) => error,
            error @ (SendError::Body(_) | SendError::Length) => io::Error::other(error),
        })
    })
    .await?;
    Ok(keeps)
}

/// How the client is told where the answer ends (RFC 9112, section 6).
fn framed(status: StatusCode, headers: &HeaderMap, body: &Outgoing, asked: &Asked) -> Framed {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Framed::Nothing;
    }
    if asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Framed::Bodiless;
    }
    let declared = || headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    match body.size_hint().exact().or_else(declared) {
        Some(length) => Framed::Length(length),
        None if asked.is_old => Framed::Close,
        None => Framed::Chunked,
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(header::CONNECTION).iter();
    options.any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}
