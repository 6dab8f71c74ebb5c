//! TLS.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use servers::open;
use store::{Commit, Kind, Partition, Store};
use store_postgres::{OpenError, Options, PostgresStore};
use test_servers::{Postgres, PostgresOptions};
use types::TenantId;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn a_certificate_is_checked_as_the_url_says() {
    let (ours, others) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();
    let tls = Some((certificate.pem(), key.serialize_pem()));
    // Only what is encrypted is let in.
    let server = Postgres::start(PostgresOptions { tls, ..PostgresOptions::default() }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        format!("sslmode=verify-full&sslrootcert={}", path.display())
    };
    let (right, wrong) = (roots("ours.pem", ours.pem()), roots("others.pem", others.pem()));
    let named = |parameters: &str| server.url(parameters).replace("127.0.0.1", "localhost");
    let refusal = async |url: String| {
        let error = PostgresStore::open(Options::parse(&url).unwrap()).await.unwrap_err();
        assert!(matches!(error, OpenError::Server { .. }), "{error}");
    };

    for url in [named(&right), server.url("sslmode=require")] {
        let store = open(&url).await;
        let p = Partition::new(TenantId::new("t").unwrap(), Kind::new("k"), "p").unwrap();
        store.commit(Commit::new(p)).await.unwrap();
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
            WHERE usename = 'crosstown'";
        assert_eq!(server.sql("postgres", encrypted).unwrap(), "t");
        drop(store);
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE usename = 'crosstown'";
        server.sql("postgres", end).unwrap();
    }
    refusal(named(&wrong)).await;
    // A name that the certificate does not have.
    refusal(server.url(&right)).await;
    // The system does not know our authority.
    refusal(server.url("sslmode=verify-full")).await;
    // A server without TLS is not spoken to in the clear.
    let plain = Postgres::start(PostgresOptions::default()).unwrap();
    refusal(plain.url("sslmode=require")).await;
    let missing = "sslmode=verify-full&sslrootcert=/nowhere";
    let error = PostgresStore::open(Options::parse(&plain.url(missing)).unwrap()).await;
    assert!(matches!(error.unwrap_err(), OpenError::Tls { .. }));
}
