use super::*;
use clock::ManualClock;
use serde_json::json;
use std::sync::Arc;
use store_memory::{Fault, MemoryStore};
use types::{CredentialKind, Principal, Role, TenantId, Timestamp};

const START: Timestamp = Timestamp(1_700_000_000_000);

struct Office {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    mailboxes: Mailboxes,
}

impl Office {
    fn new(config: Config) -> Self {
        let clock = ManualClock::new(START, 7);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let genesis = Genesis::new(store.clone(), clock.clone());
        let mailboxes = Mailboxes::new(store.clone(), clock.clone(), genesis, config);
        Self { clock, store, mailboxes }
    }

    async fn send(&self, by: &Caller, to: &str, new: Json) -> Result<Sent, Problem> {
        let new = serde_json::from_value(new).unwrap();
        self.mailboxes.send(by, &to.parse()?, new).await
    }

    /// What waits: names and data.
    async fn waiting(&self, of: &Caller) -> Vec<(String, Json)> {
        let letters = self.mailboxes.list(of, &Address::of(of), None).await.unwrap();
        letters.into_iter().map(|one| (one.name, one.letter.data)).collect()
    }
}

fn caller(kind: PrincipalKind, name: &str, roles: &[&str]) -> Caller {
    Caller {
        roles: roles.iter().map(|role| Role::new(role).unwrap()).collect(),
        ..Caller::new(
            TenantId::new("acme").unwrap(),
            Principal { kind, id: PrincipalId::new(name).unwrap() },
            CredentialKind::Jwt,
        )
    }
}

fn ann() -> Caller {
    caller(PrincipalKind::User, "ann", &[])
}

fn crm() -> Caller {
    caller(PrincipalKind::Service, "crm", &[])
}

#[tokio::test]
async fn letters_wait_in_order_until_they_are_acknowledged() {
    let office = Office::new(Config::default());
    let (ann, crm) = (ann(), crm());
    let mut names = Vec::new();
    for n in 1..=3 {
        let sent = office.send(&crm, "user:ann", json!({ "data": n })).await.unwrap();
        assert!(!sent.repeated);
        names.push(sent.letter);
    }
    let waiting: Vec<_> = names.iter().cloned().zip([json!(1), json!(2), json!(3)]).collect();
    assert_eq!(office.waiting(&ann).await, waiting);
    let own = Address::of(&ann);
    // It may be acknowledged again.
    for _ in 0..2 {
        office.mailboxes.acknowledge(&ann, &own, &names[1]).await.unwrap();
    }
    assert_eq!(office.waiting(&ann).await, [waiting[0].clone(), waiting[2].clone()]);
    let after = office.mailboxes.list(&ann, &own, Some(&names[0])).await.unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(
        (after[0].letter.from.as_str(), after[0].letter.from_kind),
        ("crm", PrincipalKind::Service)
    );
}

#[tokio::test]
async fn a_letter_is_sent_once_by_its_name() {
    let office = Office::new(Config { ids_for: Duration::from_secs(3600), ..Config::default() });
    let (ann, crm) = (ann(), crm());
    let letter = json!({ "id": "order-7", "data": 1 });
    let first = office.send(&crm, "user:ann", letter.clone()).await.unwrap();
    let again = office.send(&crm, "user:ann", letter.clone()).await.unwrap();
    assert_eq!((again.letter.clone(), again.repeated), (first.letter.clone(), true));
    // The name is the sender's own, and outlives the letter.
    let agent = caller(PrincipalKind::Agent, "crm", &[]);
    assert!(!office.send(&agent, "user:ann", letter.clone()).await.unwrap().repeated);
    office.mailboxes.acknowledge(&ann, &Address::of(&ann), &first.letter).await.unwrap();
    assert!(office.send(&crm, "user:ann", letter.clone()).await.unwrap().repeated);
    assert_eq!(office.waiting(&ann).await.len(), 1);
    office.clock.advance(Duration::from_secs(3601));
    assert!(!office.send(&crm, "user:ann", letter).await.unwrap().repeated);
}

#[tokio::test]
async fn an_answer_that_is_lost_sends_no_second_letter() {
    let crm = crm();
    let letter = json!({ "id": "order-7", "data": 1 });
    for (fault, repeated) in [(Fault::LoseRequest, false), (Fault::LoseReply, true)] {
        let office = Office::new(Config::default());
        office.send(&crm, "user:ann", json!({ "data": 0 })).await.unwrap();
        office.store.plan_faults(|faults| faults.on_commit(1, fault));
        let lost = office.send(&crm, "user:ann", letter.clone()).await.unwrap_err();
        assert_eq!(lost.code, Code::StoreUnavailable);
        let again = office.send(&crm, "user:ann", letter.clone()).await.unwrap();
        assert_eq!(again.repeated, repeated);
        assert_eq!(office.waiting(&ann()).await.len(), 2);
    }
}

#[tokio::test]
async fn what_is_given_back_too_often_is_dead_and_can_be_revived() {
    let office = Office::new(Config { refusals_max: 2, ..Config::default() });
    let (ann, crm) = (ann(), crm());
    let own = Address::of(&ann);
    let name = office.send(&crm, "user:ann", json!({ "data": 1 })).await.unwrap().letter;
    office.mailboxes.give_back(&ann, &own, &name, "no printer").await.unwrap();
    let held = office.mailboxes.list(&ann, &own, None).await.unwrap();
    let refused = Refused { times: 1, why: "no printer".into() };
    assert_eq!(held[0].letter.refused.as_ref(), Some(&refused));
    office.mailboxes.give_back(&ann, &own, &name, "no paper").await.unwrap();
    assert!(office.waiting(&ann).await.is_empty());
    let dead = office.mailboxes.dead(&ann, &own, None).await.unwrap();
    assert_eq!((dead.len(), &dead[0].name, &*dead[0].letter.why), (1, &name, "refused"));
    assert_eq!(dead[0].letter.letter.refused.as_ref().map(|one| &*one.why), Some("no paper"));
    let gone = office.mailboxes.give_back(&ann, &own, &name, "").await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    let revived = office.mailboxes.revive(&ann, &own, &name).await.unwrap();
    assert!(revived > name);
    assert_eq!(office.waiting(&ann).await, [(revived.clone(), json!(1))]);
    assert!(office.mailboxes.dead(&ann, &own, None).await.unwrap().is_empty());
    let twice = office.mailboxes.revive(&ann, &own, &name).await.unwrap_err();
    assert_eq!(twice.code, Code::NotFound);
}

#[tokio::test]
async fn nobody_reads_what_has_expired() {
    let office = Office::new(Config::default());
    let (ann, crm) = (ann(), crm());
    let own = Address::of(&ann);
    let soon = office.send(&crm, "user:ann", json!({ "data": 1, "ttl": "1m" })).await.unwrap();
    office.send(&crm, "user:ann", json!({ "data": 2 })).await.unwrap();
    office.clock.advance(Duration::from_secs(59));
    assert_eq!(office.waiting(&ann).await.len(), 2);
    office.clock.advance(Duration::from_secs(2));
    assert_eq!(office.waiting(&ann).await.len(), 1);
    let dead = office.mailboxes.dead(&ann, &own, None).await.unwrap();
    assert_eq!((&dead[0].name, &*dead[0].letter.why), (&soon.letter, "expired"));
}

#[tokio::test]
async fn a_mailbox_is_bounded() {
    let config = Config {
        letters_max: 2,
        dead_max: 2,
        refusals_max: 1,
        letter_bytes_max: 8,
        ..Config::default()
    };
    let office = Office::new(config);
    let (ann, crm) = (ann(), crm());
    let own = Address::of(&ann);
    let send = async |data: Json| office.send(&crm, "user:ann", json!({ "data": data })).await;
    let names = [send(json!(1)).await.unwrap().letter, send(json!(2)).await.unwrap().letter];
    assert_eq!(send(json!(3)).await.unwrap_err().code, Code::Overloaded);
    assert_eq!(send(json!("1234567")).await.unwrap_err().code, Code::BodyTooLarge);
    for name in &names {
        office.mailboxes.give_back(&ann, &own, name, "").await.unwrap();
    }
    let third = send(json!(3)).await.unwrap().letter;
    office.mailboxes.give_back(&ann, &own, &third, "").await.unwrap();
    let dead = office.mailboxes.dead(&ann, &own, None).await.unwrap();
    assert_eq!(dead.iter().map(|one| &one.name).collect::<Vec<_>>(), [&names[1], &third]);
    // What is acknowledged makes room, and so does what has expired.
    for n in 0..3 {
        let name = send(json!(n)).await.unwrap().letter;
        office.mailboxes.acknowledge(&ann, &own, &name).await.unwrap();
    }
    for _ in 0..2 {
        let soon = json!({ "data": 1, "ttl": "1m" });
        office.send(&crm, "user:ann", soon).await.unwrap();
    }
    assert_eq!(send(json!(4)).await.unwrap_err().code, Code::Overloaded);
    let revived = office.mailboxes.revive(&ann, &own, &third).await;
    assert_eq!(revived.unwrap_err().code, Code::Overloaded);
    office.clock.advance(Duration::from_secs(61));
    assert!(office.waiting(&ann).await.is_empty());
    send(json!(4)).await.unwrap();
}

#[tokio::test]
async fn a_mailbox_is_its_owners() {
    let office = Office::new(Config::default());
    let (ann, crm) = (ann(), crm());
    let own = Address::of(&ann);
    office.send(&crm, "user:ann", json!({ "data": 1 })).await.unwrap();
    let bob = caller(PrincipalKind::User, "bob", &[]);
    let agent = caller(PrincipalKind::Agent, "ann", &[]);
    let admin = caller(PrincipalKind::User, "eve", &["admin"]);
    for (who, may_read, may_send) in [
        (&ann, true, true),
        (&bob, false, false),
        (&agent, false, true),
        (&admin, true, true),
        (&crm, true, true),
    ] {
        let read = office.mailboxes.list(who, &own, None).await;
        assert_eq!(read.is_ok(), may_read, "{:?}", who.principal);
        let sent = office.send(who, "user:ann", json!({ "data": 1 })).await;
        assert_eq!(sent.is_ok(), may_send, "{:?}", who.principal);
    }
    let stranger = Caller { tenant: TenantId::new("other").unwrap(), ..ann.clone() };
    assert!(office.waiting(&stranger).await.is_empty());
    let open = Office::new(Config { users_send: true, ..Config::default() });
    assert!(open.send(&bob, "user:ann", json!({ "data": 1 })).await.is_ok());
    for id in ["", "a\nb", &"x".repeat(129)] {
        let refused = office.send(&crm, "user:ann", json!({ "id": id, "data": 1 })).await;
        assert_eq!(refused.unwrap_err().code, Code::BadRequest);
    }
}
