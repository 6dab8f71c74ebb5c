//! TLS of the edge: what connections are begun with, renewed when its files change.

mod config;
mod names;

pub use config::{ClientAuth, HostCertificate, TlsConfig};

use crate::config::ConfigError;
use arc_swap::ArcSwap;
use names::Names;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// TLS of the edge listener.
#[derive(Debug)]
pub(crate) struct EdgeTls {
    config: TlsConfig,
    current: ArcSwap<Material>,
    seen: Mutex<Seen>,
    renewals: AtomicU64,
    failed: AtomicU64,
}

/// What new connections are begun with. Never changes.
pub(crate) struct Material {
    pub(crate) server: Arc<ServerConfig>,
    /// Whom clients' certificates have to satisfy, if they are asked for any.
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// The files as they were looked at last.
#[derive(Debug)]
struct Seen {
    contents: Vec<Option<Vec<u8>>>,
    /// Why they are not taken, if they are not.
    problem: Option<String>,
}

/// How TLS is, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsStatus {
    /// How often its files were taken anew.
    pub renewals: u64,
    /// How many handshakes have failed.
    pub failed: u64,
    /// Why the files as they are now are not taken; those before them are in use.
    pub problem: Option<String>,
}

impl EdgeTls {
    /// Reads every file.
    ///
    /// # Errors
    /// [`ConfigError::Tls`].
    pub(crate) fn open(config: &TlsConfig) -> Result<Self, ConfigError> {
        config.check().map_err(ConfigError::Tls)?;
        let contents = contents(&config.files());
        let material = Material::read(config).map_err(ConfigError::Tls)?;
        Ok(Self {
            config: config.clone(),
            current: ArcSwap::from_pointee(material),
            seen: Mutex::new(Seen { contents, problem: None }),
            renewals: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// What a connection that comes now is begun with.
    pub(crate) fn material(&self) -> Arc<Material> {
        self.current.load_full()
    }

    pub(crate) fn config(&self) -> &TlsConfig {
        &self.config
    }

    pub(crate) fn status(&self) -> TlsStatus {
        let problem = self.seen.lock().problem.clone();
        TlsStatus {
            renewals: self.renewals.load(Relaxed),
            failed: self.failed.load(Relaxed),
            problem,
        }
    }

    /// A handshake has failed.
    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Takes the files as they are now, if they have changed and can be used together. Reads
    /// files: not for a core.
    pub(crate) fn renew(&self) {
        let mut seen = self.seen.lock();
        let contents = contents(&self.config.files());
        if contents == seen.contents {
            return;
        }
        seen.contents = contents;
        match Material::read(&self.config) {
            Ok(material) => {
                self.current.store(Arc::new(material));
                self.renewals.fetch_add(1, Relaxed);
                seen.problem = None;
                tracing::info!("new connections are shown the certificates as they are now");
            }
            Err(problem) => {
                tracing::error!(problem, "the certificates of before stay in use");
                seen.problem = Some(problem);
            }
        }
    }
}

fn contents(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|file| fs::read(file).ok()).collect()
}

impl Material {
    fn read(config: &TlsConfig) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let mut names = Names::new(certified(&config.certificate, &config.key)?);
        for host in &config.hosts {
            names.add(&host.names, certified(&host.certificate, &host.key)?)?;
        }
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let clients = verifier(config)?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder.with_cert_resolver(Arc::new(names));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if clients.is_some() {
            // A session that is taken up again does not prove the certificate again.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        } else {
            server.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
        }
        Ok(Self { server: Arc::new(server), clients })
    }
}

/// A certificate and its key, which have to belong together.
fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let chain = transport::certificates(certificate)?;
    let private = transport::private_key(key)?;
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
        format!(
            "`{}` and `{}` do not belong together: {error}",
            certificate.display(),
            key.display()
        )
    })
}

fn verifier(config: &TlsConfig) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(file) = &config.client_ca else { return Ok(None) };
    let roots = Arc::new(transport::read_roots(file)?);
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    if let Some(file) = &config.client_crl {
        builder = builder.with_crls(transport::revocations(file)?);
    }
    if config.client_auth == ClientAuth::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| format!("`{}`: {error}", file.display()))
}
