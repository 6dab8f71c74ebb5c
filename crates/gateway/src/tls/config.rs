//! How the edge proves who it is, and what it asks of clients.

use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// TLS of the edge listener, versions 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// A PEM file with the certificate and those that lead to its root, its own first. It is
    /// for every name that no entry of `hosts` has, and for clients that name none.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
    /// Certificates for some names. Default: none.
    #[serde(default)]
    pub hosts: Vec<HostCertificate>,
    /// Whether clients show a certificate. Default `off`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// A PEM file with the certificates that clients' certificates have to lead to. Needed
    /// unless `client_auth` is `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// A PEM file with revocation lists of everyone who issues clients' certificates: one
    /// whose issuer has no list there is refused. Default: nothing is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_crl: Option<PathBuf>,
    /// How often the files are looked at; what has changed holds for new connections, and is
    /// looked at by each reload, too. Default `10s`.
    #[serde(default = "watch_interval", with = "types::duration")]
    pub watch_interval: Duration,
    /// Handshakes of one core that may be under way, 1 to 65536; one more connection is closed.
    /// Default 1,024.
    #[serde(default = "handshakes_max")]
    pub handshakes_max: usize,
}

fn watch_interval() -> Duration {
    Duration::from_secs(10)
}

fn handshakes_max() -> usize {
    1024
}

/// A certificate for some host names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCertificate {
    /// The names, exact or as `*.example.org` for those with one label more. The certificate
    /// has to be valid for each.
    pub names: Vec<String>,
    /// A PEM file with the certificate and those that lead to its root, its own first.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked; one that does not hold ends the handshake, none does not.
    Optional,
    /// Without one that holds there is no handshake.
    Required,
}

impl TlsConfig {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// One line.
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.client_auth, &self.client_ca) {
            (ClientAuth::Off, Some(_)) => {
                return Err("`client_ca` is for `client_auth = \"optional\"` or `\"required\"`; \
                     set it, or remove `client_ca`"
                    .into());
            }
            (ClientAuth::Optional | ClientAuth::Required, None) => {
                return Err("`client_auth` needs `client_ca`, the certificates that clients' \
                     certificates have to lead to"
                    .into());
            }
            (ClientAuth::Off, None) | (ClientAuth::Optional | ClientAuth::Required, Some(_)) => {}
        }
        if self.client_crl.is_some() && self.client_ca.is_none() {
            return Err("`client_crl` needs `client_ca`".into());
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(86_400))
            .contains(&self.watch_interval)
        {
            return Err("`watch_interval` must be 100ms to 24h".into());
        }
        if !(1..=65_536).contains(&self.handshakes_max) {
            return Err("`handshakes_max` must be 1 to 65536".into());
        }
        Ok(())
    }

    /// Every file that it names.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let hosts = self.hosts.iter().flat_map(|host| [&host.certificate, &host.key]);
        let clients = [&self.client_ca, &self.client_crl].into_iter().flatten();
        [&self.certificate, &self.key].into_iter().chain(hosts).chain(clients).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(more: &str) -> Result<(), String> {
        let text = format!("certificate = \"c.pem\"\nkey = \"k.pem\"\n{more}");
        toml::from_str::<TlsConfig>(&text).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("client_auth = \"optional\"\nclient_ca = \"ca.pem\""), Ok(()));
        for (wrong, said) in [
            ("client_auth = \"required\"", "needs `client_ca`"),
            ("client_ca = \"ca.pem\"", "`client_ca` is for"),
            ("client_crl = \"crl.pem\"", "`client_crl` needs `client_ca`"),
            ("watch_interval = \"1ms\"", "`watch_interval`"),
            ("handshakes_max = 0", "`handshakes_max`"),
            ("verify = false", "unknown field"),
            ("client_auth = \"on\"", "unknown variant"),
        ] {
            let message = check(wrong).unwrap_err();
            assert!(message.contains(said), "{message}");
        }
    }
}
