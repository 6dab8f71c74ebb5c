use super::*;
use crate::{
    counting::Counting,
    session::{self, NewSession, Status, Update},
};
use clock::ManualClock;
use store::SharedStore;
use store_memory::MemoryStore;
use types::Timestamp;

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

#[tokio::test]
async fn a_session_that_was_read_is_asked_for_without_the_store() {
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
        revocations,
        clock.clone(),
    ));
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
