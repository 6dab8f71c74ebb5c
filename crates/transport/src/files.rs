//! Certificates and keys in PEM files, and what clients trust.

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
};
use std::{fs, path::Path, sync::Arc};

/// The certificates of a file, in its order; at least one.
///
/// # Errors
/// One line that names the file.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = all(file, "certificate")?;
    if found.is_empty() { Err(wrong(file, &"it holds no certificate")) } else { Ok(found) }
}

/// The revocation lists of a file; at least one.
///
/// # Errors
/// One line that names the file.
pub fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let found = all(file, "revocation list")?;
    if found.is_empty() { Err(wrong(file, &"it holds no revocation list")) } else { Ok(found) }
}

/// The first private key of a file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// One line that names the file.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = fs::read(file).map_err(|error| wrong(file, &error))?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|error| wrong(file, &format!("no private key can be read: {error}")))
}

/// The certificates of a file, as those that are trusted.
///
/// # Errors
/// One line that names the file.
pub fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| wrong(file, &error))?;
    }
    Ok(roots)
}

/// The certificates that the machine trusts.
///
/// # Errors
/// One line, if there are none.
pub fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("the machine trusts no certificates".into()) } else { Ok(roots) }
}

/// How to call those whom `roots` prove, with a certificate and its key to show if they ask.
///
/// # Errors
/// One line, if the key does not fit.
pub fn client(
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, String> {
    let said = |error: rustls::Error| error.to_string();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(said)?
        .with_root_certificates(roots);
    match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(said),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn all<T: PemObject>(file: &Path, what: &str) -> Result<Vec<T>, String> {
    let bytes = fs::read(file).map_err(|error| wrong(file, &error))?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    found.map_err(|error| wrong(file, &format!("a {what} cannot be read: {error}")))
}

fn wrong(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("`{}`: {why}", file.display())
}
