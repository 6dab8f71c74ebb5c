//! What nodes say to each other: HTTP/1.1 on a listener of its own, signed with a secret that
//! the nodes keep in their store.
//!
//! A request carries `X-Crosstown-Peer: {milliseconds since 1970}.{nonce}.{mac}`, where `mac`
//! is HMAC-SHA256 (RFC 2104) over time, nonce, path and body; an answer carries a `mac` over
//! the request's nonce and its own body. A request is taken once, and within half a minute.

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Response, StatusCode},
    routing::post,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use clock::SharedClock;
use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ledger::Keeper;
use protocol::{Code, Problem};
use realtime::Realtime;
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use store::{Check, Commit, Key, Kind, Partition, SharedStore};
use traffic_cop::limit::{ASKS_MAX, Ask, Grant, Owners, Shared, shard_of};
use types::{TenantId, Timestamp};

const SIGNATURE: &str = "x-crosstown-peer";
/// How far the clocks of nodes may be apart.
const FRESH: Duration = Duration::from_secs(30);
/// Requests that are remembered, so that none is taken twice; beyond, all are refused.
const SEEN_MAX: usize = 262_144;
const BODY_MAX: usize = 256 * 1024;
/// Bytes of an answer: of hundreds of connections, with some of their subscriptions.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Bytes of commands for a stream: as many as a message may have in any configuration.
const COMMANDS_MAX: usize = 1024 * 1024;
/// How long an owner may take to answer.
const ANSWER: Duration = Duration::from_millis(400);
/// How long a node may take to hand commands to a stream; it waits for room in between.
const HANDED: Duration = Duration::from_secs(8);

/// The sockets of this node, once there are any.
pub(super) type Streams = Arc<OnceLock<Arc<Realtime>>>;

/// The secret that the nodes of a store share.
#[derive(Clone)]
pub(super) struct Secret([u8; 32]);

impl Secret {
    /// Reads the secret, or makes it if this is the first node.
    ///
    /// # Errors
    /// Those of the store, or what is wrong with the record.
    pub(super) async fn open(store: &SharedStore, clock: &SharedClock) -> Result<Self, String> {
        let told = |error: store::Error| format!("the nodes' secret cannot be read: {error}");
        let partition = Partition::new(TenantId::system(), Kind::new("peers"), "").map_err(told)?;
        let key = Key::new("secret").map_err(told)?;
        let made: [u8; 32] = clock::random(&**clock);
        let commit = Commit::new(partition.clone())
            .check(Check::Absent { key: key.clone() })
            .put(key.clone(), made.to_vec());
        match store.commit(commit).await {
            Ok(_) => return Ok(Self(made)),
            Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(told(error)),
        }
        let record = store.get(&partition, &key).await.map_err(told)?;
        let secret = record.and_then(|record| <[u8; 32]>::try_from(&*record.value).ok());
        secret.map(Self).ok_or_else(|| "the nodes' secret in the store is damaged".into())
    }

    fn sign(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    fn signature(&self, parts: &[&[u8]]) -> String {
        URL_SAFE_NO_PAD.encode(self.sign(parts).finalize().into_bytes())
    }

    /// In constant time.
    fn is_by_us(&self, signature: &str, parts: &[&[u8]]) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|mac| self.sign(parts).verify_slice(&mac).is_ok())
    }
}

/// Answers other nodes.
pub(super) struct Server {
    secret: Secret,
    clock: SharedClock,
    limits: Arc<Shared>,
    streams: Streams,
    seen: Mutex<Seen>,
}

impl Server {
    pub(super) fn routes(
        secret: Secret,
        clock: SharedClock,
        limits: Arc<Shared>,
        streams: Streams,
    ) -> Router {
        let server = Arc::new(Self { secret, clock, limits, streams, seen: Mutex::default() });
        Router::new()
            .route("/limits", post(grant))
            .route("/streams/{session}", post(hand_on))
            .route("/connections", post(connections))
            .route("/channels", post(channels))
            .route("/followers", post(followers))
            .route("/count", post(count))
            .route("/traces", post(traces))
            .with_state(server)
    }

    /// The body of a request of ours, and its nonce.
    async fn admit(
        &self,
        request: Request,
        most: usize,
    ) -> Result<(Bytes, String), Response<Body>> {
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(body, most).await else {
            return Err(answer(StatusCode::PAYLOAD_TOO_LARGE, String::new()));
        };
        match self.admitted(&head.headers, head.uri.path(), &body) {
            Some(nonce) => Ok((body, nonce)),
            None => Err(answer(
                StatusCode::UNAUTHORIZED,
                "this listener is for Crosstown's nodes".into(),
            )),
        }
    }

    /// An answer that the other node believes.
    fn signed(&self, nonce: &str, body: String) -> Response<Body> {
        let signature = self.secret.signature(&[nonce.as_bytes(), body.as_bytes()]);
        let mut response = answer(StatusCode::OK, body);
        if let Ok(signature) = HeaderValue::from_str(&signature) {
            response.headers_mut().insert(SIGNATURE, signature);
        }
        response
    }

    /// The nonce, if a node of ours has sent this just now, and for the first time.
    fn admitted(&self, headers: &HeaderMap, path: &str, body: &[u8]) -> Option<String> {
        let value = headers.get(SIGNATURE)?.to_str().ok()?;
        let mut parts = value.splitn(3, '.');
        let (time, nonce, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let signed = [time.as_bytes(), nonce.as_bytes(), path.as_bytes(), body];
        if !self.secret.is_by_us(signature, &signed) {
            return None;
        }
        let (sent, now) = (Timestamp(time.parse().ok()?), self.clock.now());
        if sent.since(now).max(now.since(sent)) > FRESH {
            tracing::warn!("a node's request is refused: the clocks are more than 30 s apart");
            return None;
        }
        let first = self.seen.lock().unwrap_or_else(PoisonError::into_inner).first(nonce, now);
        first.then(|| nonce.to_owned())
    }
}

fn answer(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// Commands for a stream of this node. Answers the code of what is wrong, or nothing.
async fn hand_on(
    State(server): State<Arc<Server>>,
    Path(session): Path<String>,
    request: Request,
) -> Response<Body> {
    let (commands, nonce) = match server.admit(request, COMMANDS_MAX).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let handed = match server.streams.get() {
        Some(realtime) => realtime.emulate(&session, commands).await,
        None => Err(Problem::new(Code::NotFound, "there are no streams yet")),
    };
    server
        .signed(&nonce, handed.map_or_else(|problem| problem.code.to_string(), |()| String::new()))
}

/// Answers a question about the sockets of this node.
async fn answer_by<Q, A, F>(
    server: &Server,
    request: Request,
    ask: impl FnOnce(Arc<Realtime>, Q) -> F,
) -> Response<Body>
where
    Q: DeserializeOwned,
    A: Serialize + Default,
    F: Future<Output = Result<A, Problem>>,
{
    let (body, nonce) = match server.admit(request, COMMANDS_MAX).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let question: Q = match serde_json::from_slice(&body) {
        Ok(question) => question,
        Err(error) => return answer(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let answered = match server.streams.get() {
        Some(realtime) => ask(realtime.clone(), question).await,
        // There are no sockets yet.
        None => Ok(A::default()),
    };
    match answered {
        Ok(answered) => {
            server.signed(&nonce, serde_json::to_string(&answered).expect("an answer is JSON"))
        }
        Err(problem) => answer(StatusCode::BAD_REQUEST, problem.detail),
    }
}

async fn connections(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let ask = async |realtime: Arc<Realtime>, question| realtime.answer(question).await;
    answer_by(&server, request, ask).await
}

async fn channels(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let ask = async |realtime: Arc<Realtime>, wanted| Ok(realtime.channels(&wanted).await);
    answer_by(&server, request, ask).await
}

async fn followers(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let ask = async |realtime: Arc<Realtime>, of| realtime.followers(&of).await;
    answer_by(&server, request, ask).await
}

async fn count(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let ask = async |realtime: Arc<Realtime>, of| Ok(realtime.count(&of).await);
    answer_by(&server, request, ask).await
}

async fn traces(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let ask = async |realtime: Arc<Realtime>, question| realtime.trace(question).await;
    answer_by(&server, request, ask).await
}

async fn grant(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let (body, nonce) = match server.admit(request, BODY_MAX).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let asks: Vec<Ask> = match serde_json::from_slice(&body) {
        Ok(asks) => asks,
        Err(error) => return answer(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if asks.len() > ASKS_MAX {
        return answer(StatusCode::BAD_REQUEST, "too many questions".into());
    }
    let grants = server.limits.grant(&asks).await;
    server.signed(&nonce, serde_json::to_string(&grants).expect("grants are JSON"))
}

/// Nonces of the last minute.
#[derive(Default)]
struct Seen {
    by_time: VecDeque<(Timestamp, String)>,
    nonces: HashSet<String>,
}

impl Seen {
    fn first(&mut self, nonce: &str, now: Timestamp) -> bool {
        while let Some((at, _)) = self.by_time.front()
            && now.since(*at) > 2 * FRESH
            && let Some((_, old)) = self.by_time.pop_front()
        {
            self.nonces.remove(&old);
        }
        if self.nonces.len() >= SEEN_MAX || !self.nonces.insert(nonce.to_owned()) {
            return false;
        }
        self.by_time.push_back((now, nonce.to_owned()));
        true
    }
}

/// Asks other nodes.
pub(super) struct Peers {
    secret: Secret,
    clock: SharedClock,
    keeper: Arc<Keeper>,
    http: OnceLock<Client<HttpConnector, Full<Bytes>>>,
}

impl Peers {
    pub(super) fn new(secret: Secret, clock: SharedClock, keeper: Arc<Keeper>) -> Self {
        Self { secret, clock, keeper, http: OnceLock::new() }
    }

    /// Hands commands to a stream of another node.
    ///
    /// # Errors
    /// `not_found` if there is no such node or stream; what the stream's node says;
    /// `upstream_unreachable` if it says nothing.
    pub(super) async fn emulate(
        &self,
        node: &str,
        session: &str,
        commands: &Bytes,
    ) -> Result<(), Problem> {
        let gone = || Problem::new(Code::NotFound, "there is no such stream");
        let address = self.keeper.address(node).ok_or_else(gone)?;
        if !session.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(gone());
        }
        let path = format!("/streams/{session}");
        let posted = self.post(&address, &path, commands.to_vec());
        let silent = |error| {
            tracing::warn!(%error, node, "commands for a stream do not reach their node");
            Problem::new(Code::UpstreamUnreachable, "the node of the stream does not answer")
        };
        let answer = tokio::time::timeout(HANDED, posted).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".into())).map_err(silent)?;
        match &answer[..] {
            b"" => Ok(()),
            b"rate_limited" => {
                Err(Problem::new(Code::RateLimited, "the stream has too many commands to do"))
            }
            b"body_too_large" => {
                Err(Problem::new(Code::BodyTooLarge, "the commands are longer than allowed"))
            }
            _ => Err(gone()),
        }
    }

    /// What every other node answers, and which does not.
    pub(super) async fn ask_all<A: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Vec<Result<A, String>>, Problem> {
        let body = serde_json::to_vec(question)
            .map_err(|_| Problem::new(Code::Internal, "the question cannot be written"))?;
        let others = self.keeper.others();
        let asked = others.iter().map(|(node, address)| {
            let posted = self.post(address, path, body.clone());
            async move {
                let answer = tokio::time::timeout(HANDED, posted).await;
                let answer = answer.map_err(|_| format!("{node} does not answer in time"))??;
                serde_json::from_slice(&answer).map_err(|error| format!("{node}: {error}"))
            }
        });
        Ok(join_all(asked).await)
    }

    async fn post(&self, address: &str, path: &str, body: Vec<u8>) -> Result<Bytes, String> {
        let said = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        let time = self.clock.now().0.to_string();
        let nonce = URL_SAFE_NO_PAD.encode(clock::random::<12>(&*self.clock));
        let signed = [time.as_bytes(), nonce.as_bytes(), path.as_bytes(), &body];
        let signature = format!("{time}.{nonce}.{}", self.secret.signature(&signed));
        let request = http::Request::post(format!("http://{address}{path}"))
            .header(SIGNATURE, signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| said(&error))?;
        let client = self.http.get_or_init(|| {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            Client::builder(TokioExecutor::new()).build(connector)
        });
        let (head, body) =
            client.request(request).await.map_err(|error| said(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| said(&error))?;
        let body = body.to_bytes();
        if head.status != StatusCode::OK {
            return Err(format!("{address}: {} {}", head.status, String::from_utf8_lossy(&body)));
        }
        let signature = head.headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        let ours = signature
            .is_some_and(|signature| self.secret.is_by_us(signature, &[nonce.as_bytes(), &body]));
        if ours { Ok(body) } else { Err(said(&"the answer is not one of ours")) }
    }
}

#[async_trait]
impl Owners for Peers {
    fn nodes(&self) -> u64 {
        self.keeper.node_count() as u64
    }

    fn owner(&self, place: u8) -> Option<String> {
        let (node, _) = self.keeper.owner(shard_of(place)?)?;
        Some(node.to_string())
    }

    async fn ask(&self, owner: &str, asks: Vec<Ask>) -> Result<Vec<Option<Grant>>, String> {
        if owner == self.keeper.node().as_str() {
            return Err("this node is about to take it over".into());
        }
        let address = self.keeper.address(owner).ok_or("the node is gone")?;
        let body = serde_json::to_vec(&asks).map_err(|error| error.to_string())?;
        let asked = self.post(&address, "/limits", body);
        let answer = tokio::time::timeout(ANSWER, asked).await;
        let answer = answer.map_err(|_| format!("{address} does not answer in time"))??;
        serde_json::from_slice(&answer).map_err(|error| format!("{address}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once() {
        let mut seen = Seen::default();
        let at = |seconds: u64| Timestamp(seconds * 1000);
        assert!(seen.first("a", at(0)) && seen.first("b", at(1)));
        assert!(!seen.first("a", at(59)));
        assert!(seen.first("a", at(61)), "it would be too old by then");
        assert!(!seen.first("b", at(61)));
        assert_eq!(seen.nonces.len(), 2);
    }

    #[test]
    fn only_the_secret_signs() {
        let (ours, theirs) = (Secret([1; 32]), Secret([2; 32]));
        let signature = ours.signature(&[b"a", b"bc"]);
        assert!(ours.is_by_us(&signature, &[b"a", b"bc"]));
        assert!(!theirs.is_by_us(&signature, &[b"a", b"bc"]));
        assert!(!ours.is_by_us(&signature, &[b"ab", b"c"]));
        assert!(!ours.is_by_us("", &[b"a", b"bc"]));
    }
}
