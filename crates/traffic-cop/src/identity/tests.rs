use super::*;
use crate::{
    counting::Counting,
    session::{self, NewSession, Status, Update},
};
use clock::ManualClock;
use store::SharedStore;
use store_memory::MemoryStore;
use types::Pillars;
use types::{Pillar, Timestamp};

/// What a core does with a token: who it is, by what it remembers or else by the store.
async fn caller(
    identity: &Arc<Identity>,
    cache: &mut CallerCache,
    clock: &ManualClock,
    token: &str,
) -> Result<Arc<Caller>, Problem> {
    if let Some(known) = cache.get(token, identity.epoch(), clock::Clock::now(clock)) {
        return Ok(known);
    }
    let identified = identity.clone().identify(token.to_owned()).await?;
    cache.insert(token.to_owned(), &identified);
    Ok(identified.caller)
}

struct Ground {
    clock: Arc<ManualClock>,
    store: Arc<Counting>,
    revocations: Revocations,
    sessions: Arc<Sessions>,
    identity: Arc<Identity>,
}

/// Nobody runs the revocations: what is known is known without the store's hints.
fn ground() -> Ground {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 7);
    let store = Counting::over(Arc::new(MemoryStore::new(clock.clone())));
    let shared: SharedStore = store.clone();
    let revocations = Revocations::new(shared.clone());
    let config = session::Config::default();
    let sessions = Sessions::new(shared.clone(), clock.clone(), config, revocations.clone());
    let sessions = Arc::new(sessions);
    let identity = Arc::new(Identity::new(
        &Config::default(),
        Issuers::default(),
        ApiKeys::new(shared, clock.clone(), revocations.clone()),
        sessions.clone(),
        revocations.clone(),
        clock.clone(),
    ));
    Ground { clock, store, revocations, sessions, identity }
}

fn pillars(names: &[&str]) -> Pillars {
    Pillars::new(names.iter().map(|name| Pillar::new(name).unwrap())).unwrap()
}

#[tokio::test]
async fn other_pillars_hold_once_they_are_acknowledged() {
    let Ground { clock, sessions, identity, revocations, .. } = ground();
    let tenant = TenantId::new("acme").unwrap();
    let ann = Principal { kind: PrincipalKind::User, id: PrincipalId::new("ann").unwrap() };
    let new = NewSession { pillars: pillars(&["content"]), ..NewSession::default() };
    let (made, token) = sessions.create(&tenant, &ann, new).await.unwrap();
    let mut cache = CallerCache::new(16);
    let first = caller(&identity, &mut cache, &clock, &token).await.unwrap();
    assert_eq!(first.pillars, pillars(&["content"]));
    let hold = sessions.hold(&tenant, made.id).unwrap();
    assert_eq!(hold.pillars(), Some(pillars(&["content"])));

    let other = Update { pillars: Some(pillars(&["insights"])), ..Update::default() };
    sessions.update(&tenant, made.id, other).await.unwrap();
    let now = caller(&identity, &mut cache, &clock, &token).await.unwrap();
    assert_eq!(now.pillars, pillars(&["insights"]));
    assert_eq!(hold.pillars(), Some(pillars(&["insights"])));

    // A change that is none makes nobody ask again; nor does another one of the session.
    let epoch = revocations.epoch();
    for update in [
        Update { pillars: Some(pillars(&["insights"])), ..Update::default() },
        Update { metadata: Some(serde_json::Map::new()), ..Update::default() },
    ] {
        sessions.update(&tenant, made.id, update).await.unwrap();
    }
    assert_eq!(revocations.epoch(), epoch);
    // Who has read something else than is known is not remembered with it.
    let other = Standing { pillars: pillars(&["content"]), ..Standing::default() };
    revocations.note(&hold, other);
    assert_ne!(revocations.epoch(), epoch);
    assert_eq!(hold.pillars(), Some(pillars(&["insights"])));
}

#[tokio::test]
async fn a_session_that_was_read_is_asked_for_without_the_store() {
    let Ground { clock, store, sessions, identity, .. } = ground();
    let tenant = TenantId::new("acme").unwrap();
    let ann = Principal { kind: PrincipalKind::User, id: PrincipalId::new("ann").unwrap() };
    let (made, token) = sessions.create(&tenant, &ann, NewSession::default()).await.unwrap();

    let mut cache = CallerCache::new(16);
    let first = caller(&identity, &mut cache, &clock, &token).await.unwrap();
    assert_eq!(first.session, Some(made.id));
    store.calls();
    for _ in 0..1_000 {
        clock.advance(Duration::from_millis(29));
        let again = caller(&identity, &mut cache, &clock, &token).await.unwrap();
        assert_eq!(again, first);
    }
    assert_eq!(store.calls(), 0);

    // It is trusted for half a minute, and not beyond a change that ends it.
    clock.advance(Duration::from_secs(2));
    caller(&identity, &mut cache, &clock, &token).await.unwrap();
    assert_eq!(store.calls(), 1);
    let suspended = Update { status: Some(Status::Suspended), ..Update::default() };
    sessions.update(&tenant, made.id, suspended).await.unwrap();
    let problem = caller(&identity, &mut cache, &clock, &token).await.unwrap_err();
    assert_eq!(problem.code, Code::Forbidden);
}

#[test]
fn a_request_has_one_credential() {
    let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
    let check = |fields: &[(&'static str, &str)], expected: Result<Option<&str>, Code>| {
        let fields = fields.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        let mut headers = HeaderMap::new();
        fields.for_each(|(name, value)| _ = headers.append(name, value));
        let found = Identity::credential(&headers).map_err(|problem| problem.code);
        assert_eq!(found, expected, "{headers:?}");
    };
    check(&[("host", "a"), ("x-api-keys", "k")], Ok(None));
    check(&[("host", "a"), ("x-api-key", "k")], Ok(Some("k")));
    check(&[("x-session-token", "s t")], Ok(Some("s t")));
    check(&[("authorization", "bearer  t ")], Ok(Some("t")));
    check(&[("authorization", "Basic t")], Err(Code::Unauthenticated));
    check(&[("authorization", "t")], Err(Code::Unauthenticated));
    check(&[("x-api-key", "é")], Err(Code::Unauthenticated));
    check(&[("x-api-key", &long)], Err(Code::Unauthenticated));
    check(&[("x-api-key", "k"), ("x-api-key", "k")], Err(Code::BadRequest));
    check(&[("x-api-key", "k"), ("authorization", "Bearer t")], Err(Code::BadRequest));
}
