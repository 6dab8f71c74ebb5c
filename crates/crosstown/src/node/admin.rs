//! The admin listener and its key.

use axum::Router;
use clock::Clock;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections of operators at a time.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// Reads the admin key, or makes it at the first start.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(super) fn key(file: &Path, clock: &dyn Clock) -> Result<String, String> {
    let failed = |what: &str, error: std::io::Error| {
        format!("cannot {what} the admin key {}: {error}", file.display())
    };
    match fs::read_to_string(file) {
        Ok(key) if key.trim().len() >= 32 => return Ok(key.trim().to_owned()),
        Ok(_) => {
            return Err(format!(
                "{} holds no admin key; delete it, and the next start makes one",
                file.display()
            ));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("read", error)),
    }
    let key = traffic_cop::random_secret(clock);
    let mut options = fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|error| failed("write", error))?;
    writeln!(out, "{key}").map_err(|error| failed("write", error))?;
    Ok(key)
}

/// Answers by `routes` until dropped, on so many connections at a time.
pub(crate) async fn serve(listener: TcpListener, routes: Router, connections_max: usize) {
    let mut server = Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    let room = Arc::new(Semaphore::new(connections_max));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let server = server.clone();
        tokio::spawn(async move {
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // An operator's connection may idle for a while, and then makes room.
            let _ = tokio::time::timeout(Duration::from_secs(300), connection).await;
            drop(permit);
        });
    }
}
