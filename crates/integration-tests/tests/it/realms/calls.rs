//! Calls between services.

use super::{Realms, told};
use crate::affinity::{Bound, Instances};
use client::Client;
use http::Method;
use integration_tests::Server;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

#[tokio::test]
async fn what_a_bridge_lets_pass_passes_and_nothing_else() {
    let realms = Realms::as_it_is();
    let plans = realms.plans();
    let (status, plan) = told(&plans, Method::GET, "/plans/first", None).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(plan["asked"]["realm"], "experience");
    assert_eq!(plan["asked"]["actor"], "speaker");
    assert_eq!(plan["asked"]["principal"], "speaker");

    let (status, refused) = told(&plans, Method::DELETE, "/plans/first", None).await;
    assert_eq!(status, 403);
    for (member, expected) in [
        ("code", "forbidden"),
        ("rule", "no-bridge"),
        ("from", "experience"),
        ("to", "solution"),
        ("operation", "dropPlan"),
    ] {
        assert_eq!(refused[member], expected, "{refused}");
    }
    // Within a realm everything may be called, by whom the document takes.
    let own = realms.speaker("solution").service("solution", "plans");
    let (status, refused) = told(&own, Method::DELETE, "/plans/first", None).await;
    assert_eq!((status, &refused["operation"]), (403, &json!("dropPlan")), "{refused}");
    assert!(refused.get("rule").is_none());
    let planner = realms.with_roles("p", &["realm-solution", "planner"]);
    let planner = planner.service("solution", "plans");
    assert_eq!(told(&planner, Method::DELETE, "/plans/none", None).await.0, 404);
    assert_eq!(told(&planner, Method::DELETE, "/plans/first", None).await.0, 204);
}

#[tokio::test]
async fn who_speaks_for_no_realm_calls_nothing() {
    let realms = Realms::as_it_is();
    let user = realms.node.client("acme", "ann").service("solution", "plans");
    let (status, refused) = told(&user, Method::GET, "/plans/first", None).await;
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")));
    let nobody = Client::new(&realms.node.base(), "nonsense").unwrap();
    let nobody = nobody.service("solution", "plans");
    assert_eq!(told(&nobody, Method::GET, "/plans/first", None).await.0, 401);
    // What there is not is told to those only who may call something.
    assert_eq!(told(&user, Method::GET, "/nothing", None).await.0, 403);
    let speaker = realms.speaker("experience");
    for (realm, service, path) in [
        ("solution", "none", "/plans/first"),
        ("none", "plans", "/plans/first"),
        ("solution", "plans", "/nothing"),
        ("solution", "plans", ""),
    ] {
        let service = speaker.service(realm, service);
        let (status, refused) = told(&service, Method::GET, path, None).await;
        assert_eq!((status, &refused["code"]), (404, &json!("no_route")), "{realm} {path}");
    }
    let plans = realms.plans();
    assert_eq!(told(&plans, Method::PUT, "/plans/first", None).await.0, 405);
    assert_eq!(told(&plans, Method::GET, "/../../../../metrics", None).await.0, 400);
}

#[tokio::test]
async fn a_service_calls_for_its_user() {
    let realms = Realms::as_it_is();
    let session: Json =
        realms.node.client("acme", "ann").post("/crosstown/v1/sessions", &json!({})).await.unwrap();
    let for_ann = realms.plans().on_behalf_of(session["token"].as_str().unwrap());
    let (status, plan) = told(&for_ann, Method::GET, "/plans/first", None).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(plan["asked"]["principal"], "ann");
    assert_eq!(plan["asked"]["session"], session["id"]);
    assert_eq!(plan["asked"]["actor"], "speaker");
    // Whoever cannot show a user's credential calls for nobody.
    let for_nobody = realms.plans().on_behalf_of("forged");
    assert_eq!(told(&for_nobody, Method::GET, "/plans/first", None).await.0, 401);
    // A user's credential does not stand in for the service's own.
    let token = session["token"].as_str().unwrap();
    let user = Client::new(&realms.node.base(), token).unwrap().service("solution", "plans");
    assert_eq!(told(&user, Method::GET, "/plans/first", None).await.0, 403);
}

#[tokio::test]
async fn the_version_that_is_asked_for_answers() {
    let older = |config: String| {
        let member = "[realms.solution.services.plans-1]\nname = \"plans\"\nversion = \"1.9.0\"\n\
            tags = [\"old\"]\n";
        let plans = config.split("[services.journeys]").next().unwrap();
        let older = plans[plans.find("[services.plans]").unwrap()..].replace("plans]", "plans-1]");
        format!("{config}\n{older}\n{member}")
    };
    let all = "[[bridges]]\nname = \"all\"\nfrom = \"experience\"\nto = \"solution\"\n";
    let realms = Realms::start(older, all);
    let plans = realms.plans();
    // The older one has no document, and is not held to one.
    let weird = "/plans/first?steps=none";
    for (service, expected) in [
        (plans.clone(), 400),
        (plans.version("1"), 200),
        (plans.version("^1.2"), 200),
        (plans.tagged(&["old"]), 200),
        (plans.version("2"), 400),
        (plans.version("3"), 404),
        (plans.tagged(&["new"]), 404),
        (plans.version("x"), 400),
    ] {
        let (status, body) = told(&service, Method::GET, weird, None).await;
        assert_eq!(status, expected, "{body}");
    }
}

#[tokio::test]
async fn a_service_that_is_gone_is_told_as_gone() {
    let mut realms = Realms::as_it_is();
    let plans = realms.plans();
    assert_eq!(told(&plans, Method::GET, "/plans/first", None).await.0, 200);
    // Its connection is kept, and dies between the choice and the call.
    realms.stop_plans();
    let (status, refused) = told(&plans, Method::GET, "/plans/first", None).await;
    assert_eq!((status, &refused["code"]), (502, &json!("upstream_unreachable")), "{refused}");
    assert_eq!(refused["retry"], "later");
    let (status, refused) = told(&plans, Method::DELETE, "/plans/first", None).await;
    assert_eq!((status, &refused["rule"]), (403, &json!("no-bridge")), "that did not change");
}

#[tokio::test]
async fn calls_are_counted_by_the_realm_that_is_called() {
    let realms = Realms::start(|config| config, "[analytics.log]\nsample = 1.0\n");
    let plans = realms.plans();
    for _ in 0..3 {
        assert_eq!(told(&plans, Method::GET, "/plans/first", None).await.0, 200);
    }
    assert_eq!(told(&plans, Method::DELETE, "/plans/first", None).await.0, 403);
    let (mut report, mut counted) = (Json::Null, Json::Null);
    for _ in 0..100 {
        let path = "/analytics/traffic?range=1h";
        report = realms.node.admin().get(path).await.unwrap();
        counted = report["realms"]["solution"].clone();
        if counted["requests"] == 4 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        (&counted["requests"], &counted["client_errors"]),
        (&json!(4), &json!(1)),
        "{counted}"
    );
    let endpoint = &report["endpoints"][0];
    let named = (&endpoint["pattern"], &endpoint["requests"]);
    let pattern = "/crosstown/v1/call/solution/plans/plans/{id}";
    assert_eq!(named, (&json!(pattern), &json!(3)), "as the document has it");
    let log: Json = realms.node.admin().get("/analytics/log").await.unwrap();
    let refused = log["requests"].as_array().unwrap().iter().find(|entry| entry["status"] == 403);
    assert_eq!(refused.map(|entry| &entry["code"]), Some(&json!("forbidden")), "{log}");
}

#[tokio::test]
async fn a_call_is_in_the_timeline_of_its_users_session() {
    let realms = Realms::start(|config| config, "[sessions]\ntimeline = true\n");
    let ann = realms.node.client("acme", "ann");
    let session: Json = ann.post("/crosstown/v1/sessions", &json!({})).await.unwrap();
    let for_ann = realms.plans().on_behalf_of(session["token"].as_str().unwrap());
    assert_eq!(told(&for_ann, Method::GET, "/plans/first", None).await.0, 200);
    assert_eq!(told(&for_ann, Method::DELETE, "/plans/first", None).await.0, 403);
    let path = format!("/crosstown/v1/sessions/{}/timeline", session["id"].as_str().unwrap());
    let mut seen = Vec::new();
    for _ in 0..100 {
        let timeline: Json = ann.get(&path).await.unwrap();
        seen = timeline["entries"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["service"] == "plans" || item["route"] == "plans.dropPlan")
            .map(|item| (item["route"].clone(), item["status"].clone()))
            .collect();
        if seen.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let expected = [("plans.getPlan", 200), ("plans.dropPlan", 403)];
    assert_eq!(seen, expected.map(|(route, status)| (json!(route), json!(status))));
}

#[tokio::test]
async fn a_call_is_charged_once() {
    let limit = "[[limits]]\nname = \"each\"\nper = \"user\"\nrequests = 3\nperiod = \"1h\"\n";
    let realms = Realms::start(|config| config, limit);
    let plans = realms.plans();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(told(&plans, Method::GET, "/plans/first", None).await.0);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    // For a user, the user is charged.
    let ann = realms.node.token("acme", "ann");
    let for_ann = plans.on_behalf_of(&ann);
    assert_eq!(told(&for_ann, Method::GET, "/plans/first", None).await.0, 200);
}

#[tokio::test]
async fn users_reach_one_realm_which_reaches_the_other() {
    let mut realms = Realms::as_it_is();
    realms.start_journeys().await;
    let ann = realms.node.client("acme", "ann");
    let journey: Json = ann.get("/experience/journeys/first").await.unwrap();
    assert_eq!(journey["plan"]["asked"]["principal"], "ann");
    assert_eq!(journey["plan"]["asked"]["actor"], "journeys");
    let refused = ann.delete("/experience/journeys/first").await.unwrap_err();
    assert!(refused.to_string().contains("no bridge lets the realm `experience`"), "{refused}");
    assert_eq!(refused.code(), Some("forbidden"));
    // What the document has not is not there, and is not asked for.
    for (method, path, expected) in [
        (Method::GET, "/experience/journeys", 404),
        (Method::POST, "/experience/journeys/first", 405),
        (Method::GET, "/experience/journeys/none", 404),
        (Method::GET, "/journeys/first", 404),
    ] {
        let answer = ann.call(method, path, None).await.unwrap();
        assert_eq!(answer.status, expected, "{path}");
    }
    // The other realm is open to nobody from outside.
    let speaker = realms.speaker("solution");
    let answer = speaker.call(Method::GET, "/experience/journeys/first", None).await.unwrap();
    assert_eq!(answer.status, 403, "a realm does not come in by the door of users");
}

#[tokio::test]
async fn the_bridge_of_a_call_is_explained() {
    let realms = Realms::as_it_is();
    let ask = async |method: &str, roles: &[&str]| -> Json {
        let asked = json!({
            "method": method,
            "url": "/crosstown/v1/call/solution/plans/plans/first",
            "as": { "tenant": "acme", "principal": "s", "kind": "service", "roles": roles },
        });
        realms.node.admin().post("/explain", &asked).await.unwrap()
    };
    let told = ask("GET", &["realm-experience"]).await;
    assert_eq!(told["outcome"], "forwarded", "{told}");
    assert_eq!(told["route"], "plans.getPlan");
    assert_eq!(told["target"], "/plans/first");
    assert_eq!(told["bridge"]["rule"], "experience-uses-plans");
    let told = ask("DELETE", &["realm-experience"]).await;
    assert_eq!(
        (&told["outcome"], &told["bridge"]["rule"]),
        (&json!("forbidden"), &json!("no-bridge"))
    );
    let told = ask("DELETE", &["realm-solution", "planner"]).await;
    assert_eq!((&told["outcome"], &told["bridge"]["rule"]), (&json!("forwarded"), &Json::Null));
    assert_eq!(ask("GET", &[]).await["outcome"], "forbidden");
}

#[tokio::test]
async fn a_call_goes_where_the_session_of_its_user_is_bound() {
    let instances = Instances::start();
    let config = format!(
        "{}[realms.own]\nroles = [\"own\"]\n[realms.own.services]\nrooms = {{}}\n",
        instances.config()
    );
    let node = Server::start(&config);
    let key = Client::new(&node.base(), &node.api_key("acme", "binder").await).unwrap();
    let speaker = node.token_with("acme", "speaker", json!({ "roles": ["own"] }));
    let rooms = Client::new(&node.base(), &speaker).unwrap().service("own", "rooms");
    let mut seen = BTreeSet::new();
    for number in 0..8 {
        let room = format!("content:room-{number}");
        let session = Bound::new(&key, &format!("user-{number}"), &[&room]).await;
        let direct = session.comes_to(&node).await;
        let called: String = rooms.on_behalf_of(session.token()).get("/who").await.unwrap();
        assert_eq!(called, direct, "{room}");
        seen.insert(called);
    }
    assert!(seen.len() > 1, "{seen:?}");
}
