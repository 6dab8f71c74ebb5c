//! The product's own handlers, as the gateway mounts them.

mod carry;
mod cross;
mod streams;

use crate::node::{
    mounts::carry::carry,
    mounts::streams::{Emulation, Kind, Streams},
    peers::Peers,
};
use axum::Router;
use bytes::Bytes;
use gateway::{Auth, LocalBoxFuture, Mount, MountPoint, Upgrade};
use http::{Request, Response};
use http_body_util::BodyExt;
use protocol::{Code, Problem};
use realtime::{Accepted, CoreSockets};
use soa::{Body, Priority};
use std::{
    net::{IpAddr, Ipv4Addr},
    rc::Rc,
    sync::Arc,
};
use tokio::runtime::Handle;
use tower::ServiceExt;
use transport::Stream;
use types::Caller;

/// Bytes of a body that the API takes.
const API_BODY_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that is mounted on a core.
pub(super) fn all(
    api: Router,
    control: Handle,
    sockets: CoreSockets,
    peers: Option<Arc<Peers>>,
) -> Vec<MountPoint> {
    let message_bytes_max = sockets.config().message_bytes_max;
    let stream = |kind| Rc::new(Streams { sockets: sockets.clone(), kind });
    let emulation = Emulation { sockets: sockets.clone(), peers, control: control.clone() };
    let api = Rc::new(Api { router: api, control });
    let mut mounts = vec![
        MountPoint {
            prefix: "/crosstown/v1/sessions/handover".into(),
            name: "_api",
            // A code is all that it takes.
            auth: Auth::Optional,
            body_bytes_max: API_BODY_BYTES_MAX,
            priority: Some(Priority::Urgent),
            mount: api.clone(),
        },
        MountPoint {
            prefix: "/crosstown/v1/openapi.json".into(),
            name: "_api",
            auth: Auth::Optional,
            body_bytes_max: 0,
            priority: Some(Priority::Normal),
            mount: api.clone(),
        },
        MountPoint {
            prefix: "/crosstown/v1/".into(),
            name: "_api",
            auth: Auth::Required,
            body_bytes_max: API_BODY_BYTES_MAX,
            // Services that register themselves keep on doing so.
            priority: Some(Priority::Urgent),
            mount: api,
        },
        MountPoint {
            prefix: "/connection/websocket".into(),
            name: "_sockets",
            auth: Auth::Optional,
            body_bytes_max: 0,
            priority: Some(Priority::High),
            mount: Rc::new(Sockets { sockets: sockets.clone(), serve: Serve::Client }),
        },
        MountPoint {
            prefix: "/connection/sse".into(),
            name: "_sockets",
            auth: Auth::Optional,
            body_bytes_max: message_bytes_max as u64,
            priority: Some(Priority::High),
            mount: stream(Kind::Events),
        },
        MountPoint {
            prefix: "/connection/http_stream".into(),
            name: "_sockets",
            auth: Auth::Optional,
            body_bytes_max: message_bytes_max as u64,
            priority: Some(Priority::High),
            mount: stream(Kind::Http),
        },
        MountPoint {
            prefix: "/emulation".into(),
            name: "_emulation",
            // The session in it is a secret of the stream's client.
            auth: Auth::None,
            body_bytes_max: streams::emulation_bytes_max(message_bytes_max) as u64,
            // What is said on streams that are open.
            priority: None,
            mount: Rc::new(emulation),
        },
    ];
    if cfg!(feature = "echo") {
        mounts.push(MountPoint {
            prefix: "/debug/echo".into(),
            name: "_echo",
            auth: Auth::None,
            body_bytes_max: 0,
            priority: None,
            mount: Rc::new(Sockets { sockets, serve: Serve::Echo }),
        });
    }
    mounts
}

/// The HTTP API. It waits for stores, so it runs on the control runtime.
struct Api {
    router: Router,
    control: Handle,
}

impl Mount for Api {
    fn call(&self, request: Request<Body>) -> LocalBoxFuture<Response<Body>> {
        let (head, body) = request.into_parts();
        let (body, carried) = carry(body);
        let request = Request::from_parts(head, body);
        let answer = self.control.spawn(self.router.clone().oneshot(request));
        Box::pin(async move {
            let (answer, ()) = tokio::join!(answer, carried);
            match answer {
                Ok(Ok(response)) => response.map(|body| {
                    Body::from(body.map_err(|error| Box::new(error).into()).boxed_unsync())
                }),
                Ok(Err(never)) => match never {},
                Err(error) => {
                    tracing::error!(%error, "a request to the API has failed");
                    refusal(&Problem::new(Code::Internal, "the request failed"))
                }
            }
        })
    }
}

enum Serve {
    /// The client protocol.
    Client,
    /// Every message comes back.
    Echo,
}

/// Sockets. They stay on their core.
struct Sockets {
    sockets: CoreSockets,
    serve: Serve,
}

impl Mount for Sockets {
    fn call(&self, mut request: Request<Body>) -> LocalBoxFuture<Response<Body>> {
        let accepted = self.sockets.accept(request.method(), request.headers());
        let Accepted { response, encoding } = match accepted {
            Ok(accepted) => accepted,
            Err(problem) => return Box::pin(std::future::ready(refusal(&problem))),
        };
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ip = request.extensions().get().copied().unwrap_or(unknown);
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let upgrade = Upgrade::take(&mut request);
        let sockets = self.sockets.clone();
        let echo = matches!(self.serve, Serve::Echo);
        tokio::task::spawn_local(async move {
            let Some(upgrade) = upgrade else { return };
            let Some(socket) = upgrade.socket().await else { return };
            // Nothing of HTTP is left of the connection; it counts as one until it ends.
            let (_permit, stream, early) = (socket.permit, socket.stream, socket.early);
            if echo {
                return Box::pin(serve_echo(sockets, stream, early)).await;
            }
            let serving = sockets.serve(stream, &early, encoding, caller, ip);
            drop(early);
            serving.await;
        });
        Box::pin(std::future::ready(response.map(|()| Body::Empty)))
    }
}

#[cfg(feature = "echo")]
async fn serve_echo(sockets: CoreSockets, stream: Stream, early: Bytes) {
    sockets.echo(stream, early).await;
}

#[cfg(not(feature = "echo"))]
async fn serve_echo(_: CoreSockets, _: Stream, _: Bytes) {}

fn refusal(problem: &Problem) -> Response<Body> {
    problem.to_response().map(Body::from)
}
