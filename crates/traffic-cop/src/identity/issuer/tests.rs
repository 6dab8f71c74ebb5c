use super::*;
use serde_json::{Value as Json, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn config(more: Json) -> Config {
    let mut config = json!({
        "name": "i", "issuer": "https://i", "audience": ["crosstown"],
        "algorithms": ["HS256"], "secret": SECRET,
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn claims(more: Json) -> Json {
    let mut claims = json!({
        "iss": "https://i", "aud": "crosstown", "exp": NOW.as_secs() + 60,
        "sub": "ann", "tenant": "acme",
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}

fn check(config_more: Json, claims_more: Json, expected: Result<&str, Code>) {
    let shown = format!("{config_more} {claims_more}");
    let payload = serde_json::to_vec(&claims(claims_more)).unwrap();
    let config = config(config_more);
    let claims = config.claims(&payload, NOW);
    let caller = claims.and_then(|claims| {
        let tenant = config.tenant_of(&claims)?;
        Ok(claims.of(tenant))
    });
    let got = caller.map(|caller| format!("{}/{}", caller.tenant, caller.principal.id));
    assert_eq!(got.as_deref().map_err(|problem| problem.code), expected, "{shown}");
}

#[test]
fn claims_are_required_and_read_strictly() {
    let no = Err(Code::Unauthenticated);
    check(json!({}), json!({}), Ok("acme/ann"));
    check(json!({}), json!({ "aud": ["x", "crosstown"] }), Ok("acme/ann"));
    for claim in ["iss", "aud", "exp", "sub", "tenant"] {
        check(json!({}), json!({ claim: null }), no);
        check(json!({}), json!({ claim: {} }), no);
        check(
            json!({}),
            json!({ claim: "else" }),
            if claim == "sub" {
                Ok("acme/else")
            } else if claim == "tenant" {
                Ok("else/ann")
            } else {
                no
            },
        );
    }
    check(json!({}), json!({ "exp": NOW.as_secs() - 31 }), Err(Code::TokenExpired));
    check(json!({}), json!({ "exp": NOW.as_secs() - 29 }), Ok("acme/ann"));
    check(json!({}), json!({ "exp": 1e300 }), no);
    check(json!({}), json!({ "nbf": NOW.as_secs() + 31 }), no);
    check(json!({}), json!({ "kind": "king" }), no);
    check(json!({}), json!({ "roles": "admin" }), no);
    check(json!({}), json!({ "session": "ses_x" }), no);
    check(json!({ "tenant": "fixed" }), json!({ "tenant": "acme" }), Ok("fixed/ann"));
    check(json!({ "tenant_claim": "org" }), json!({ "org": "o" }), Ok("o/ann"));
    let inner = json!({ "tenant_claim": "app.org" });
    check(inner.clone(), json!({ "app": { "org": "o" } }), Ok("o/ann"));
    check(inner.clone(), json!({ "app.org": "dotted", "app": { "org": "o" } }), Ok("dotted/ann"));
    check(inner.clone(), json!({ "app": "o" }), no);
    check(inner, json!({ "app": { "org": 1 } }), no);
    let waived = json!({ "waive": ["iss", "aud", "exp"], "tenant": "t" });
    check(waived.clone(), json!({ "iss": null, "aud": null, "exp": null }), Ok("t/ann"));
    check(waived, json!({ "aud": "elsewhere" }), no);
}

struct Server(AtomicUsize, Json);

#[async_trait]
impl FetchKeys for Server {
    async fn fetch(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(serde_json::to_vec(&self.1).unwrap())
    }
}

fn open(more: Json, keys: Json) -> (Issuers, Arc<Server>) {
    let server = Arc::new(Server(AtomicUsize::new(0), keys));
    let opened = Issuers::open(&[config(more)], server.clone(), &HashMap::new(), &clock_at_now());
    (opened.unwrap(), server)
}

fn signed(secret: &str, header: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
    let token = jws::sign(secret.as_bytes(), &claims(json!({}))).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let message = format!("{}.{payload}", B64.encode(header));
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let algorithm = jsonwebtoken::Algorithm::HS256;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

async fn accepts(issuers: &Issuers, token: &str) -> bool {
    issuers.identify(token, NOW).await.is_ok()
}

#[tokio::test]
async fn a_token_cannot_choose_its_algorithm_or_key() {
    let (issuers, _) = open(json!({}), json!({}));
    assert!(accepts(&issuers, &signed(SECRET, r#"{"alg":"HS256"}"#)).await);
    assert!(accepts(&issuers, &signed(SECRET, r#"{"alg":"HS256","jku":"http://evil"}"#)).await);
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"typ":"JWT"}"#,
        r#"["HS256"]"#,
    ] {
        assert!(!accepts(&issuers, &signed(SECRET, header)).await, "{header}");
    }
    assert!(
        !accepts(&issuers, &signed("another secret of thirty-two bytes", r#"{"alg":"HS256"}"#))
            .await
    );
    let (rsa_only, _) = open(json!({ "algorithms": ["RS256"] }), json!({}));
    assert!(!accepts(&rsa_only, &signed(SECRET, r#"{"alg":"HS256"}"#)).await);
}

#[tokio::test]
async fn a_key_servers_keys_are_found_by_their_exact_name() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
    let key =
        |kid: &str, secret: &str| json!({ "kty": "oct", "kid": kid, "k": B64.encode(secret) });
    let set = json!({ "keys": [key("one", SECRET), { "kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB" }] });
    let (issuers, server) = open(json!({ "secret": null, "jwks_url": "https://i/jwks" }), set);
    assert!(accepts(&issuers, &signed(SECRET, r#"{"alg":"HS256","kid":"one"}"#)).await);
    for kid in ["two", "../one", "one ", "' OR 1=1"] {
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        assert!(!accepts(&issuers, &signed(SECRET, &header)).await, "{kid}");
    }
    assert_eq!(server.0.load(Ordering::Relaxed), 1, "the key server is not asked at will");
}

#[test]
fn ed25519_is_verified() {
    // RFC 8037, appendix A.4.
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let key = VerifyingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(key.verify(token).unwrap(), b"Example of Ed25519 signing");
    let tampered = token.replacen("RXhh", "RXhi", 1);
    assert_eq!(key.verify(&tampered), Err(jws::Error::Signature));
}

/// Every user of this table is a member of one tenant.
struct Table;

#[async_trait]
impl Members for Table {
    async fn of(&self, user: &str) -> Result<Vec<membership::Membership>, store::Error> {
        let (tenant, role) = (format!("{user}s-tenant"), Some("editor".to_owned()));
        Ok(vec![membership::Membership { tenant, role }])
    }
}

#[tokio::test]
async fn memberships_take_the_place_of_a_claim() {
    let looks_up = json!({ "membership": { "table": "public.members" } });
    let configs = [config(looks_up.clone())];
    let (server, clock) = (Arc::new(Server(AtomicUsize::new(0), json!({}))), clock_at_now());
    let open = |members: &HashMap<String, Arc<dyn Members>>| {
        Issuers::open(&configs, server.clone(), members, &clock)
    };
    assert!(open(&HashMap::new()).err().unwrap().contains("issuer `i`"));
    let issuers = open(&[("i".to_owned(), Arc::new(Table) as _)].into()).unwrap();
    let sign = |tenant: Json| jws::sign(SECRET.as_bytes(), &claims(json!({ "tenant": tenant })));
    let proved = issuers.identify(&sign(Json::Null).unwrap(), NOW).await.unwrap();
    assert_eq!(proved.caller.tenant.as_str(), "anns-tenant");
    assert!(proved.caller.has_role("editor") && proved.looked_up_until > Some(NOW));
    assert!(issuers.identify(&sign("anns-tenant".into()).unwrap(), NOW).await.is_ok());
    let foreign = issuers.identify(&sign("acme".into()).unwrap(), NOW).await.unwrap_err();
    assert_eq!(foreign.code, Code::Unauthenticated);
    for wrong in [
        json!({ "membership": { "table": "t" }, "tenant": "acme" }),
        json!({ "membership": { "table": "t", "cached_for": "1h" } }),
    ] {
        assert!(Issuers::check(&[config(wrong.clone())]).is_err(), "{wrong}");
    }
}

fn clock_at_now() -> SharedClock {
    clock::ManualClock::new(NOW, 1)
}

#[test]
fn a_token_says_something_of_its_holder() {
    let check = |more: Json, expected: Result<Option<&str>, Code>| {
        let shown = more.to_string();
        let payload = serde_json::to_vec(&claims(more)).unwrap();
        let read = config(json!({ "tenant": "t" })).claims(&payload, NOW);
        let info = read.map(|claims| claims.info.map(|info| info.as_str().to_owned()));
        let info = info.map_err(|problem| problem.code);
        assert_eq!(info.as_ref().map(Option::as_deref), expected.as_ref().copied(), "{shown}");
    };
    let no = Err(Code::Unauthenticated);
    check(json!({}), Ok(None));
    check(json!({ "info": null }), Ok(None));
    check(json!({ "info": { "name": "Ann\n" } }), Ok(Some("{\"name\":\"Ann\\n\"}")));
    check(json!({ "info": "Ann" }), Ok(Some("\"Ann\"")));
    let base64 = |text: &str| STANDARD.encode(text);
    check(json!({ "b64info": base64("{ \"a\":\n1 }"), "info": 2 }), Ok(Some("{\"a\":1}")));
    check(json!({ "b64info": "", "info": 2 }), Ok(Some("2")));
    check(json!({ "b64info": base64("bytes") }), no);
    check(json!({ "b64info": "%" }), no);
    check(json!({ "b64info": 5 }), no);
    let long = "x".repeat(Info::BYTES_MAX - 2);
    check(json!({ "info": long }), Ok(Some(&format!("\"{long}\""))));
    check(json!({ "info": format!("{long}x") }), no);
    check(json!({ "b64info": base64(&format!("\"{long}x\"")) }), no);
}
