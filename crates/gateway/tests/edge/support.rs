//! A gateway, an origin that records every byte, and clients that send any.

use clock::SystemClock;
use gateway::{Auth, Config, Gateway, Parts, RouteConfig};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use traffic_cop::{
    analytics::Analytics,
    identity::{
        AnonymousConfig, Config as IdentityConfig, Identity, Revocations,
        api_key::{ApiKeys, NewApiKey},
        issuer::Issuers,
    },
    limit::{Limits, Rule, Shared},
    session::Sessions,
};

pub(crate) struct Edge {
    pub(crate) gateway: Gateway,
    pub(crate) analytics: Arc<Analytics>,
    pub(crate) keys: ApiKeys,
}

/// A listener of its own with short timeouts, and one open route to service `origin`.
pub(crate) fn config() -> Config {
    let second = Duration::from_secs(1);
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        workers: 2,
        header_timeout: second,
        body_timeout: second,
        idle_timeout: second * 20,
        write_timeout: second * 2,
        routes: vec![RouteConfig {
            name: "all".into(),
            service: "origin".into(),
            auth: Auth::None,
            ..RouteConfig::default()
        }],
        ..Config::default()
    }
}

/// What clients ask for below a prefix that is taken off, `/api`, and what services see of it.
pub(crate) const BELOW: [(&str, &str); 6] = [
    ("/api/x?y=%2f", "/x?y=%2f"),
    ("/api/a%20b;c", "/a%20b;c"),
    ("/%61pi/x?y", "/x?y"),
    ("/api?y", "/?y"),
    ("/api", "/"),
    ("http://a/api/x?y", "/x?y"),
];

/// An open route below `prefix`.
pub(crate) fn route(name: &str, prefix: &str) -> RouteConfig {
    RouteConfig {
        name: name.into(),
        service: "origin".into(),
        prefix: Some(prefix.into()),
        auth: Auth::None,
        ..RouteConfig::default()
    }
}

pub(crate) fn one_worker() -> Config {
    Config { workers: 1, ..config() }
}

/// The route of that prefix.
pub(crate) fn stripped() -> RouteConfig {
    RouteConfig {
        name: "api".into(),
        service: "origin".into(),
        prefix: Some("/api".into()),
        auth: Auth::None,
        strip_prefix: true,
        ..RouteConfig::default()
    }
}

pub(crate) fn services(origins: &[&str]) -> soa::Config {
    let instances = origins.iter().map(|origin| format!("http://{origin}"));
    [("origin".to_owned(), soa::ServiceConfig::at(instances))].into()
}

impl Edge {
    pub(crate) fn start(config: Config, services: &soa::Config) -> Self {
        Self::with(config, services, Vec::new(), None, Arc::new(|_| Vec::new()))
    }

    pub(crate) fn with(
        config: Config,
        services: &soa::Config,
        rules: Vec<Rule>,
        anonymous: Option<AnonymousConfig>,
        make_mounts: gateway::MakeMounts,
    ) -> Self {
        let identity = IdentityConfig { anonymous, ..IdentityConfig::default() };
        Self::identifying(config, services, rules, &identity, make_mounts)
    }

    pub(crate) fn identifying(
        config: Config,
        services: &soa::Config,
        rules: Vec<Rule>,
        identity: &IdentityConfig,
        make_mounts: gateway::MakeMounts,
    ) -> Self {
        let clock = SystemClock::shared();
        let store: store::SharedStore = Arc::new(store_memory::MemoryStore::new(clock.clone()));
        let revocations = Revocations::new(store.clone());
        let keys = ApiKeys::new(store.clone(), clock.clone(), revocations.clone());
        let registry = soa::Registry::new(store.clone(), clock.clone());
        let sessions = Sessions::new(store, clock.clone(), Default::default(), revocations.clone());
        let identity = Identity::new(
            identity,
            Issuers::default(),
            keys.clone(),
            Arc::new(sessions),
            revocations,
            clock.clone(),
        );
        let analytics = Arc::new(Analytics::default());
        let parts = Parts {
            identity: Arc::new(identity),
            limits: Arc::new(Limits::new(rules, Shared::in_memory(clock.clone()))),
            analytics: analytics.clone(),
            registry,
            clock,
            control: tokio::runtime::Handle::current(),
            make_mounts,
            witness: Arc::new(()),
        };
        let gateway = Gateway::start(config, services, parts).unwrap();
        Self { gateway, analytics, keys }
    }

    pub(crate) async fn key(&self, tenant: &str, principal: &str, roles: &[&str]) -> String {
        let new = NewApiKey {
            tenant: tenant.parse().unwrap(),
            principal: principal.parse().unwrap(),
            kind: types::PrincipalKind::Service,
            roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
            expires: None,
        };
        self.keys.create(new).await.unwrap().1
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.gateway.local_addr()).await.unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await.expect("an answer")
    }
}

/// A raw connection.
pub(crate) struct Client<S = TcpStream>(pub(crate) S);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        document["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn soon<T>(what: impl std::future::Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), what).await.expect("it takes too long")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
        soon(self.0.flush()).await.unwrap();
    }

    /// A head without its body; none if the connection ended before it.
    pub(crate) async fn head(&mut self) -> Option<(u16, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match soon(self.0.read_u8()).await {
                Ok(byte) => head.push(byte),
                Err(_) => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        // Of a request, which services read with this too, it is zero.
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Some((status, head))
    }

    /// The next answer; none if the connection ended before it was whole.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let (mut status, mut head) = self.head().await?;
        while status == 100 {
            (status, head) = self.head().await?;
        }
        let mut answer = Answer { status, head, body: Vec::new() };
        if status == 101 || status == 204 || status == 304 {
            return Some(answer);
        }
        if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            soon(self.0.read_exact(&mut answer.body)).await.ok()?;
        } else if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await? {
                answer.body.extend(chunk);
            }
        } else {
            soon(self.0.read_to_end(&mut answer.body)).await.ok()?;
        }
        Some(answer)
    }

    /// The next chunk: `None` if cut short, `Some(None)` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            size.push(soon(self.0.read_u8()).await.ok()?);
        }
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        soon(self.0.read_exact(&mut chunk)).await.ok()?;
        chunk.truncate(size);
        Some((size > 0).then_some(chunk))
    }

    /// Whether the gateway ends the connection, with nothing more on it.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match soon(self.0.read_to_end(&mut rest)).await {
            Ok(_) => rest.is_empty(),
            Err(_) => true,
        }
    }
}

/// What came on one connection.
type Recorded = Arc<Mutex<Vec<u8>>>;

/// A service that records what it is sent, byte for byte, and answers each request with what
/// it was.
pub(crate) struct Origin {
    pub(crate) address: String,
    received: Arc<Mutex<Vec<Recorded>>>,
}

impl Origin {
    pub(crate) async fn echo() -> Self {
        Self::echo_over(|socket| async move { Some(socket) }).await
    }

    /// The same, over what `open` makes of each socket, if anything.
    pub(crate) async fn echo_over<S, F>(open: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let received: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let all = received.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (opening, all) = (open(socket), all.clone());
                tokio::spawn(async move {
                    let Some(stream) = opening.await else { return };
                    let bytes = Arc::new(Mutex::new(Vec::new()));
                    all.lock().push(bytes.clone());
                    echo(stream, bytes).await;
                });
            }
        });
        Self { address, received }
    }

    /// What came on each connection.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().iter().map(|bytes| bytes.lock().clone()).collect()
    }

    /// Requests that came, on all connections; fails on bytes that are not one whole request
    /// after another.
    pub(crate) fn requests(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut requests = Vec::new();
        for bytes in self.received() {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (request, after) = split(rest).ok_or_else(|| {
                    format!("not a whole request: {:?}", String::from_utf8_lossy(rest))
                })?;
                requests.push(request);
                rest = after;
            }
        }
        Ok(requests)
    }
}

type Whole<'a> = ((String, Vec<u8>), &'a [u8]);

/// Takes one request off `bytes`, as strictly as the simplest server would.
fn split(bytes: &[u8]) -> Option<Whole<'_>> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut rest = &bytes[end..];
    let field = |name: &str| {
        let mut values = head.lines().skip(1).filter_map(|line| {
            let (held, value) = line.split_once(':')?;
            held.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        let value = values.next();
        assert!(values.next().is_none(), "two {name} in {head}");
        value
    };
    let mut body = Vec::new();
    match (field("content-length"), field("transfer-encoding")) {
        (Some(length), None) => {
            let length: usize = length.parse().ok()?;
            body = rest.get(..length)?.to_vec();
            rest = &rest[length..];
        }
        (None, Some(coding)) => {
            assert_eq!(coding, "chunked");
            loop {
                let line = rest.windows(2).position(|window| window == b"\r\n")?;
                let size =
                    usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
                rest = &rest[line + 2..];
                body.extend_from_slice(rest.get(..size)?);
                assert_eq!(rest.get(size..size + 2)?, b"\r\n");
                rest = &rest[size + 2..];
                if size == 0 {
                    break;
                }
            }
        }
        (None, None) => {}
        (Some(_), Some(_)) => panic!("two lengths in {head}"),
    }
    Some(((head, body), rest))
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: Recorded) {
    let mut seen = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        bytes.lock().extend_from_slice(&buffer[..count]);
        loop {
            let request = {
                let bytes = bytes.lock();
                split(&bytes[seen..])
                    .map(|((head, body), rest)| (head, body, bytes.len() - rest.len()))
            };
            let Some((head, body, end)) = request else { break };
            seen = end;
            let text = [head.as_bytes(), &body].concat();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
            let answer = [answer.as_bytes(), &text].concat();
            if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

/// A service that does with each connection what `serve` says.
pub(crate) async fn origin<F, Fut>(serve: F) -> String
where
    F: Fn(Client, usize) -> Fut + Send + 'static,
    Fut: std::future::Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Client(stream), count));
            count += 1;
        }
    });
    address
}

/// An address where nothing listens.
pub(crate) async fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}
