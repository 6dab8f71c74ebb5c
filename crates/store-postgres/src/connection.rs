//! Connections: how they are made, and how often that is tried.

use crate::{OpenError, Options, Tls, tls};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use std::{future::poll_fn, sync::Arc, time::Duration};
use store::BoxError;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
    task::AbortHandle,
    time::Instant,
};
use tokio_postgres::{
    AsyncMessage, Client, Config, NoTls,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// After a failed try; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// No server is asked for less often than this.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Where notifications arrive.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Something was committed elsewhere, or the connection has ended.
    pub(crate) nudge: Notify,
    /// The name of this node, whose own notifications are of no interest.
    pub(crate) node: String,
}

/// A connection of one user at a time.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// Our end of it: a server that sees another port is behind a pooler.
    pub(crate) local_port: u16,
    driver: AbortHandle,
}

impl Connection {
    /// Closes it without waiting for answers; dropping it lets the server finish.
    pub(crate) fn abandon(self) {
        self.driver.abort();
    }
}

/// Makes connections, one try at a time after failures.
pub(crate) struct Connector {
    host: String,
    port: u16,
    config: Config,
    tls: Option<MakeRustlsConnect>,
    timeout: Duration,
    answer_max: Duration,
    backoff: Mutex<Backoff>,
}

struct Backoff {
    delay: Duration,
    until: Option<Instant>,
    last: String,
}

impl Connector {
    pub(crate) fn new(options: &Options) -> Result<Self, OpenError> {
        let mut config = Config::new();
        config.user(&options.user).dbname(&options.database);
        config.application_name(&options.application_name);
        if let Some(password) = &options.password {
            config.password(password);
        }
        let encrypted = options.tls != Tls::Disable;
        config.ssl_mode(if encrypted { SslMode::Require } else { SslMode::Disable });
        Ok(Self {
            host: options.host.clone(),
            port: options.port,
            config,
            tls: tls::connector(&options.tls)?,
            timeout: options.connect_timeout,
            answer_max: options.statement_timeout + Duration::from_secs(5),
            backoff: Mutex::new(Backoff { delay: BACKOFF_MIN, until: None, last: String::new() }),
        })
    }

    /// How long an answer may take before the connection is given up: longer than the server
    /// itself allows for a statement.
    pub(crate) fn answer_max(&self) -> Duration {
        self.answer_max
    }

    /// A new connection, or at once the last error while the backoff lasts. Notifications
    /// that come in go to `inbox`.
    pub(crate) async fn connect(&self, inbox: Option<Arc<Inbox>>) -> Result<Connection, BoxError> {
        if let Some(waits) = self.waits() {
            return Err(waits.into());
        }
        let tried = match tokio::time::timeout(self.timeout, self.try_connect(inbox)).await {
            Ok(tried) => tried,
            Err(_) => Err(format!("no connection within {:?}", self.timeout).into()),
        };
        let mut backoff = self.backoff.lock();
        match &tried {
            Ok(_) => (backoff.delay, backoff.until) = (BACKOFF_MIN, None),
            Err(error) => {
                backoff.until = Some(Instant::now() + backoff.delay);
                backoff.delay = (backoff.delay * 2).min(BACKOFF_MAX);
                backoff.last = error.to_string();
            }
        }
        tried
    }

    fn waits(&self) -> Option<String> {
        let backoff = self.backoff.lock();
        let waits = backoff.until.is_some_and(|until| Instant::now() < until);
        waits.then(|| format!("not connected, tried a moment ago: {}", backoff.last))
    }

    async fn try_connect(&self, inbox: Option<Arc<Inbox>>) -> Result<Connection, BoxError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        // A peer that vanished is found while nothing is sent, and while something is.
        socket.set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(Duration::from_secs(15))
                .with_interval(Duration::from_secs(5)),
        )?;
        socket.set_tcp_user_timeout(Some(self.answer_max))?;
        let local_port = stream.local_addr()?.port();
        let (client, driver) = match self.tls.clone() {
            None => self.handshake(stream, NoTls, inbox).await?,
            Some(mut tls) => {
                let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &self.host)?;
                self.handshake(stream, tls, inbox).await?
            }
        };
        Ok(Connection { client, local_port, driver })
    }

    async fn handshake<T>(
        &self,
        stream: TcpStream,
        tls: T,
        inbox: Option<Arc<Inbox>>,
    ) -> Result<(Client, AbortHandle), BoxError>
    where
        T: TlsConnect<TcpStream>,
        T::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (client, mut connection) = self
            .config
            .connect_raw(stream, tls)
            .await
            .map_err(|error| -> BoxError { chain(error).into() })?;
        let task = tokio::spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(AsyncMessage::Notification(told)) => {
                        let others = inbox.iter().filter(|inbox| inbox.node != told.payload());
                        others.for_each(|inbox| inbox.nudge.notify_one());
                    }
                    Ok(AsyncMessage::Notice(notice)) => tracing::debug!(%notice, "the server says"),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a connection ended");
                        break;
                    }
                }
            }
            // Whoever listens finds out.
            inbox.inspect(|inbox| inbox.nudge.notify_one());
        });
        Ok((client, task.abort_handle()))
    }
}

/// The client's own errors hide what the server said in their source.
fn chain(error: tokio_postgres::Error) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
