//! Sessions that change hands.

use super::*;
use integration_tests::Random;

/// Redeems a code without any credential: the status, and the answer.
async fn redeem(server: &Server, code: &str, device: &str) -> (u16, Json) {
    let body = json!({ "code": code, "device": { "name": device, "kind": "phone" } }).to_string();
    let (host, port) = server.edge();
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", "-H", "content-type: application/json", "-d", &body])
        .arg(format!("http://{host}:{port}{SESSIONS}/handover"))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

async fn offer(client: &Client, session: &Made, wish: Json) -> String {
    let offered: Json = client.post(&format!("{}/handover", session.path), &wish).await.unwrap();
    assert!(offered["until"].as_u64() > Some(0), "{offered}");
    offered["code"].as_str().unwrap().to_owned()
}

async fn is_let_in(server: &Server, token: &str) -> bool {
    let client = Client::new(&server.base(), token).unwrap();
    client.get::<Json>("/crosstown/v1/whoami").await.is_ok()
}

#[tokio::test]
async fn a_session_goes_over_to_another_device_of_its_user() {
    let server = Server::start("");
    let crm = service(&server).await;
    let session = made(&crm, "ann", json!({ "device": { "name": "phone" } })).await;
    let ann = session.client(&server);
    let mut old = Socket::connect(&server.base(), &session.token).await;
    let code = offer(&ann, &session, json!({})).await;
    // Of two who redeem it, one wins, and the other is told.
    let (first, second) =
        tokio::join!(redeem(&server, &code, "laptop"), redeem(&server, &code, "laptop"));
    let (won, lost) = if first.0 == 200 { (first, second) } else { (second, first) };
    assert_eq!((won.0, lost.0), (200, 409), "{} {}", won.1, lost.1);
    assert_eq!((&won.1["id"], &lost.1["code"]), (&json!(session.id()), &json!("conflict")));
    assert_eq!(won.1["device"]["name"], "laptop");
    assert_eq!(old.close_code().await, 3503);
    assert_eq!(old.closed.unwrap().1, "session handed over");
    assert!(!is_let_in(&server, &session.token).await);
    let now = Made::of(&won.1);
    let who: Json = now.client(&server).get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!((&who["principal"], &who["session"]), (&json!("ann"), &json!(session.id())));
    let told = events(&now.client(&server), &now, "kind=handed_over").await;
    assert_eq!(
        (&told[0]["from_device"], &told[0]["to_device"], &told[0]["by"]),
        (&json!("phone"), &json!("laptop"), &json!("user:ann"))
    );

    // With a grace, and with sockets that stay.
    let mut stays = Socket::connect(&server.base(), &now.token).await;
    let wish = json!({ "grace": "30s", "keep": true });
    let code = offer(&now.client(&server), &now, wish).await;
    let (status, tablet) = redeem(&server, &code, "tablet").await;
    assert_eq!(status, 200, "{tablet}");
    assert!(is_let_in(&server, &now.token).await);
    assert!(is_let_in(&server, tablet["token"].as_str().unwrap()).await);
    assert!(stays.rpc("session.get", json!({})).await.is_ok());
    // Nobody opens another one by what is only let go on.
    let mut late = Socket::open(&server.base()).await;
    assert!(late.ask("connect", json!({ "token": now.token })).await.is_err());
    assert_eq!(late.close_code().await, 3500);
    // What is no code is none.
    for code in ["", "csh_acme.x.y", &format!("csh_other.{}.x", session.id())] {
        assert_eq!(redeem(&server, code, "x").await.0, 404, "{code}");
    }
}

#[tokio::test]
async fn a_session_goes_over_to_an_agent_that_proves_who_it_is() {
    let server = Server::start("");
    let crm = service(&server).await;
    let session = made(&crm, "ann", json!({ "pillars": ["content"] })).await;
    let ann = session.client(&server);
    let key = async |tenant: &str, name: &str| {
        let wish = json!({ "tenant": tenant, "principal": name, "kind": "agent" });
        let key: Json = server.admin().post("/api-keys", &wish).await.unwrap();
        Client::new(&server.base(), key["text"].as_str().unwrap()).unwrap()
    };
    let (planner, other) = (key("acme", "planner").await, key("acme", "other").await);
    let foreign = key("umbrella", "planner").await;
    let wish = json!({ "to": { "user": "planner", "kind": "agent" } });
    let code = offer(&ann, &session, wish).await;
    assert_eq!(redeem(&server, &code, "x").await.0, 401);
    let body = json!({ "code": code });
    let take = async |by: &Client| by.post::<Json>(&format!("{SESSIONS}/handover"), &body).await;
    assert_eq!(refused(take(&other).await).await, "forbidden");
    assert_eq!(refused(take(&foreign).await).await, "unauthenticated");
    let taken = take(&planner).await.unwrap();
    assert_eq!((&taken["holder"], &taken["principal"]), (&json!("agent:planner"), &json!("ann")));
    let by_token = Made::of(&taken).client(&server);
    let who: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!(
        (&who["principal"], &who["kind"], &who["pillars"]),
        (&json!("planner"), &json!("agent"), &json!(["content"]))
    );
    assert!(!is_let_in(&server, &session.token).await);
    // It stays one of hers: she sees it, and ends it.
    let ann = server.client("acme", "ann");
    let listed: Json = ann.get(SESSIONS).await.unwrap();
    assert_eq!(listed["sessions"][0]["holder"], "agent:planner");
    ann.delete(&session.path).await.unwrap();
    assert!(by_token.get::<Json>("/crosstown/v1/whoami").await.is_err());
}

/// The process dies while a code is redeemed.
#[tokio::test]
async fn a_death_in_between_leaves_one_owner() {
    let mut server = Server::start("");
    let crm = service(&server).await;
    let seed = Random::seed();
    println!("CROSSTOWN_SEED={seed}");
    let mut random = Random::new(seed);
    for round in 0..4 {
        let session = made(&crm, &format!("ann-{round}"), json!({})).await;
        let code = offer(&crm, &session, json!({})).await;
        let pause = Duration::from_millis(random.below(40) as u64);
        let redeeming = async {
            let redeeming = (0..6).map(|_| redeem_quietly(&server, &code));
            futures_util::future::join_all(redeeming).await
        };
        let pid = server.pid().to_string();
        let dying = async {
            tokio::time::sleep(pause).await;
            Command::new("kill").args(["-9", &pid]).status().unwrap();
        };
        let (answers, ()) = tokio::join!(redeeming, dying);
        server.kill();
        server.start_again();
        let won: Vec<&String> = answers.iter().flatten().collect();
        assert!(won.len() <= 1, "{won:?}");
        let old = is_let_in(&server, &session.token).await;
        match won.first() {
            Some(token) => {
                assert!(is_let_in(&server, token).await && !old, "what was answered holds");
            }
            // The answer was lost, or nothing has happened: the code tells which.
            None => {
                let (status, answer) = redeem(&server, &code, "laptop").await;
                assert_eq!(status, if old { 200 } else { 409 }, "{answer}");
            }
        }
    }
}

/// The token that a code gave, if it was answered.
async fn redeem_quietly(server: &Server, code: &str) -> Option<String> {
    let body = json!({ "code": code }).to_string();
    let (host, port) = server.edge();
    let output = tokio::process::Command::new("curl")
        .args(["-s", "-m", "10", "-H", "content-type: application/json", "-d", &body])
        .arg(format!("http://{host}:{port}{SESSIONS}/handover"))
        .output()
        .await
        .unwrap();
    let answer: Json = serde_json::from_slice(&output.stdout).ok()?;
    answer["token"].as_str().map(ToOwned::to_owned)
}
