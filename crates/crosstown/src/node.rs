//! A running node: everything wired together, and shut down in order.

mod admin;
mod changes;
mod channels;
mod cluster;
mod explains;
mod holders;
mod keeping;
mod members;
mod mounts;
mod peers;
mod realms;
mod run;
mod stores;
mod views;
mod witness;

pub(crate) use admin::{CONNECTIONS_MAX, serve as serve_routes};
pub(crate) use run::{Node, check};

use crate::config::Config;
use std::{path::Path, process::ExitCode};

/// Runs a node until SIGTERM or SIGINT; SIGHUP reads the configuration again. SIGTERM gives
/// clients time to go elsewhere; a second signal ends that.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(crate) fn serve(file: Option<&Path>, config: Config) -> Result<ExitCode, String> {
    log_to_stderr();
    let runtime = control_runtime()?;
    let node = Node::start(runtime.handle(), config, file)?;
    eprintln!(
        "crosstown serves http://{} and, for operators, http://{}",
        node.edge(),
        node.admin()
    );
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let listen =
            |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    eprintln!("crosstown is about to shut down, and sends clients elsewhere");
                    tokio::select! {
                        () = node.announce() => {}
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    break;
                }
                // Somebody at a terminal does not want to wait.
                _ = interrupt.recv() => break,
                _ = hangup.recv() => match node.reload() {
                    Ok(done) => tracing::info!("{done}"),
                    Err(why) => tracing::error!(%why, "the configuration stays as it was"),
                },
            }
        }
        eprintln!("crosstown shuts down: what is in flight may finish");
        node.shut_down().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The runtime for stores, timers and everything that may wait.
pub(crate) fn control_runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CROSSTOWN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, in one process, keeps the first one's log.
    let _ = log.try_init();
}
