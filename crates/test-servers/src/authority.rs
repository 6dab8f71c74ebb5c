//! A certificate authority of a test's own.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An authority, whose files and those of its certificates lie in one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    issued: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's.
    pub key: PathBuf,
    /// The certificate's serial number.
    pub serial: u64,
}

impl Authority {
    /// A new authority, with its certificate as `NAME.pem` in `folder`.
    ///
    /// # Panics
    /// If it cannot be made, as all here.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key is made");
        let certificate = params.self_signed(&key).expect("a certificate is made");
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("it is written");
        Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), issued: 0 }
    }

    /// A certificate for a server of these names, in `FILE.pem` and `FILE.key`.
    #[must_use]
    pub fn server(&mut self, file: &str, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names of hosts");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(file, params)
    }

    /// A certificate for a client of this common name, with URIs that name it, in `FILE.pem`
    /// and `FILE.key`.
    #[must_use]
    pub fn client(&mut self, file: &str, common_name: &str, uris: &[&str]) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        params.subject_alt_names = uris.collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, params)
    }

    fn issue(&mut self, file: &str, mut params: CertificateParams) -> Issued {
        self.issued += 1;
        let serial = self.issued;
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key is made");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        let path = |ending| self.folder.join(format!("{file}.{ending}"));
        let issued = Issued { certificate: path("pem"), key: path("key"), serial };
        fs::write(&issued.certificate, certificate.pem()).expect("it is written");
        fs::write(&issued.key, key.serialize_pem()).expect("it is written");
        issued
    }

    /// Writes `FILE.pem`, a list of what it has revoked.
    #[must_use]
    pub fn revoke(&self, file: &str, serials: &[u64]) -> PathBuf {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("it is signed");
        let path = self.folder.join(format!("{file}.pem"));
        fs::write(&path, list.pem().expect("it is PEM")).expect("it is written");
        path
    }
}
