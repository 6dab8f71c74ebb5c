use super::*;
use crate::Allow;
use types::{Capability, Principal, PrincipalId};

fn caller(tenant: &str, user: &str, kind: PrincipalKind) -> Caller {
    Caller::new(
        TenantId::new(tenant).unwrap(),
        Principal { kind, id: PrincipalId::new(user).unwrap() },
        CredentialKind::Jwt,
    )
}

fn check(caller: &Caller, channel: &str, wish: Wish, expected: Result<(), Code>) {
    let config = Config {
        namespaces: vec![
            Namespace { name: "news".into(), publish: Allow::Nobody, ..Namespace::default() },
            Namespace { name: "tick".into(), history_size: 0, ..Namespace::default() },
        ],
        ..Config::default()
    };
    let channel = Channel::new(&caller.tenant, channel).unwrap();
    let got =
        admit(&config, caller, &channel, wish, false).map(|_| ()).map_err(|problem| problem.code);
    assert_eq!(got, expected, "{channel:?} {wish:?}");
}

#[test]
fn who_may_do_what() {
    let ann = caller("acme", "ann", PrincipalKind::User);
    let service = caller("acme", "orders", PrincipalKind::Service);
    check(&ann, "room", Wish::Publish, Ok(()));
    check(&ann, "news:today", Wish::Subscribe, Ok(()));
    check(&ann, "news:today", Wish::Publish, Err(Code::Forbidden));
    check(&service, "news:today", Wish::Publish, Ok(()));
    check(&ann, "else:x", Wish::Subscribe, Err(Code::NotFound));
    check(&ann, "#ann", Wish::Subscribe, Ok(()));
    check(&ann, "#ann", Wish::Publish, Err(Code::Forbidden));
    check(&ann, "#bob", Wish::Subscribe, Err(Code::Forbidden));
    check(&service, "#bob", Wish::Publish, Ok(()));
    let agent = caller("acme", "ann", PrincipalKind::Agent);
    check(&agent, "#ann", Wish::Subscribe, Err(Code::Forbidden));
    check(&agent, "#agent/ann", Wish::Subscribe, Ok(()));
    check(&ann, "#agent/ann", Wish::Subscribe, Err(Code::Forbidden));
    check(&ann, "state:user:ann", Wish::Subscribe, Ok(()));
    check(&ann, "state:user:bob", Wish::Subscribe, Err(Code::Forbidden));
    check(&ann, "state:user:ann", Wish::Publish, Err(Code::Forbidden));
    check(&ann, "state:nothing", Wish::Subscribe, Err(Code::BadRequest));
    let capability = Capability {
        channels: vec!["news:*".into(), "#bob".into()],
        wildcard: true,
        allow: vec![ChannelAction::Publish, ChannelAction::Presence],
    };
    let reporter = Caller { capabilities: Arc::new([capability]), ..ann.clone() };
    check(&reporter, "news:today", Wish::Publish, Ok(()));
    check(&reporter, "#bob", Wish::Presence, Ok(()));
    check(&reporter, "#bob", Wish::Subscribe, Err(Code::Forbidden));
    check(&reporter, "#eve", Wish::Presence, Err(Code::Forbidden));
    check(&reporter, "state:user:bob", Wish::Subscribe, Err(Code::Forbidden));
    let nobody = Caller { credential: CredentialKind::Anonymous, ..ann };
    check(&nobody, "room", Wish::Subscribe, Err(Code::Forbidden));
}
