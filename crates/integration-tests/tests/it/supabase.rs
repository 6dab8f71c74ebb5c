//! Tokens as Supabase issues them: ES256 by a key server, the user's id as `sub`, and the
//! tenants of a user in a table of a real PostgreSQL.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use client::Client;
use integration_tests::Server;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value as Json, json};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use test_servers::{Postgres, PostgresOptions, Process, ROLE, free_ports};

const WHOAMI: &str = "/crosstown/v1/whoami";
const ANN: &str = "6f1c2b9e-0d6b-4f6e-9c52-0a1b2c3d4e01";
const BOB: &str = "6f1c2b9e-0d6b-4f6e-9c52-0a1b2c3d4e02";
const NOBODY: &str = "6f1c2b9e-0d6b-4f6e-9c52-0a1b2c3d4e03";

/// A key, and the server that tells its public half.
struct Auth {
    key: KeyPair,
    port: u16,
    _server: Process,
    _folder: TempDir,
}

impl Auth {
    fn start() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        // An uncompressed point: 4, then both coordinates.
        let (x, y) = key.der_bytes()[1..].split_at(32);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
            "x": B64.encode(x), "y": B64.encode(y),
        });
        let folder = tempfile::tempdir().unwrap();
        let set = json!({ "keys": [jwk] });
        fs::write(folder.path().join("jwks.json"), set.to_string()).unwrap();
        let [port] = free_ports().unwrap();
        let mut server = Command::new("python3");
        server.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]);
        server.arg("--directory").arg(folder.path());
        let server = Process::start(&mut server, port, &folder.path().join("log")).unwrap();
        Self { key, port, _server: server, _folder: folder }
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}/auth/v1", self.port)
    }

    #[expect(clippy::disallowed_methods, reason = "a token is for the real clock of the node")]
    fn token(&self, user: &str, metadata: &Json) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": self.issuer(), "aud": "authenticated", "sub": user, "exp": now + 600,
            "role": "authenticated", "app_metadata": metadata,
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".into());
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    fn config(&self, more: &str) -> String {
        format!(
            "[[identity.issuers]]\nname = \"supabase\"\nissuer = \"{}\"\n\
             audience = [\"authenticated\"]\nalgorithms = [\"ES256\"]\n\
             jwks_url = \"http://127.0.0.1:{}/jwks.json\"\n\
             tenant_claim = \"app_metadata.tenant\"\n\
             [identity.issuers.membership]\ntable = \"public.memberships\"\n\
             role_column = \"role\"\ncached_for = \"1s\"\n{more}\n",
            self.issuer(),
            self.port
        )
    }
}

/// A table of the user's own, which Crosstown may read.
fn members(postgres: &Postgres) {
    let text = format!(
        "CREATE TABLE public.memberships (user_id uuid, tenant_id text, role text); \
         CREATE INDEX ON public.memberships (user_id); \
         INSERT INTO public.memberships VALUES ('{ANN}', 'acme', 'editor'), \
             ('{BOB}', 'acme', NULL), ('{BOB}', 'globex', 'admin'); \
         GRANT SELECT ON public.memberships TO {ROLE}"
    );
    postgres.sql(ROLE, &text).unwrap();
}

#[tokio::test]
async fn a_users_tenants_are_looked_up() {
    let mut postgres = Postgres::start(PostgresOptions::default()).unwrap();
    members(&postgres);
    let auth = Auth::start();
    let guard = "guard = { patience = \"500ms\" }";
    let keys = format!("durable = \"{}\"\n{guard}", postgres.url(""));
    let node = Server::start_on(&keys, &auth.config(""));
    let who = async |user: &str, metadata: Json| {
        let client = Client::new(&node.base(), &auth.token(user, &metadata)).unwrap();
        client.get::<Json>(WHOAMI).await
    };
    let ann = who(ANN, json!({})).await.unwrap();
    let of_ann = (&ann["tenant"], &ann["principal"], &ann["roles"]);
    assert_eq!(of_ann, (&json!("acme"), &json!(ANN), &json!(["editor"])), "{ann}");
    let bob = who(BOB, json!({ "tenant": "globex" })).await.unwrap();
    assert_eq!((&bob["tenant"], &bob["roles"]), (&json!("globex"), &json!(["admin"])));
    // Neither a wish nor a name alone makes a member.
    for (user, metadata) in [
        (ANN, json!({ "tenant": "globex" })),
        (BOB, json!({})),
        (NOBODY, json!({})),
        (NOBODY, json!({ "tenant": "acme" })),
        ("no-uuid", json!({})),
    ] {
        let refused = who(user, metadata.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Some("unauthenticated"), "{user} {metadata}: {refused}");
    }

    // Whoever is removed is let in for as long as an answer is trusted, and no longer.
    let token = auth.token(BOB, &json!({ "tenant": "globex" }));
    let client = Client::new(&node.base(), &token).unwrap();
    client.get::<Json>(WHOAMI).await.unwrap();
    postgres.sql(ROLE, &format!("DELETE FROM public.memberships WHERE user_id = '{BOB}'")).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        match client.get::<Json>(WHOAMI).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < until, "a former member is still let in"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(refused.code(), Some("unauthenticated"));

    // Without the table, who was known is known; nobody else is.
    let known = Client::new(&node.base(), &auth.token(ANN, &json!({}))).unwrap();
    known.get::<Json>(WHOAMI).await.unwrap();
    postgres.kill().unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(known.get::<Json>(WHOAMI).await.unwrap()["tenant"], "acme");
    let unknown = who(NOBODY, json!({})).await.unwrap_err();
    assert_eq!(unknown.code(), Some("store_unavailable"), "{unknown}");
    postgres.restart().unwrap();
    loop {
        match who(NOBODY, json!({})).await.unwrap_err().code() {
            Some("unauthenticated") => return,
            code => assert_eq!(code, Some("store_unavailable")),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_table_that_is_not_there_is_told_at_the_start() {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    members(&postgres);
    let auth = Auth::start();
    for (more, why) in [
        ("user_column = \"user\"", "has no column"),
        ("tenant_column = \"nothing\"", "does not exist"),
        ("user_column = \"user id\"", "is not a name"),
    ] {
        let keys = format!("durable = \"{}\"", postgres.url(""));
        let said = Server::refused_on(&keys, &auth.config(more));
        assert!(said.contains("issuer `supabase`") && said.contains(why), "{more}: {said}");
    }
}
