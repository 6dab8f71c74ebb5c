//! What a session works in opens channels and documents to it.

use client::Client;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};

const SESSIONS: &str = "/crosstown/v1/sessions";
const WHO: &str = "/crosstown/v1/whoami";
const CONNECTIONS: &str = "/crosstown/v1/connections";
const CONFIG: &str = "[[realtime.namespaces]]\nname = \"content\"\npresence = true\n\
    subscribe = { pillars = [\"content\"] }\npublish = { pillars = [\"editing\"] }\n\
    [[realtime.namespaces]]\nname = \"insights\"\nsubscribe = { pillars = [\"insights\"] }\n\
    [[state.rules]]\ndocument = \"pillar:content\"\nread = { pillars = [\"content\"] }\n";

struct Ground {
    server: Server,
    service: Client,
}

impl Ground {
    async fn new() -> Self {
        let server = Server::start(CONFIG);
        let service = Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap();
        Self { server, service }
    }

    /// A session of ann's, its path and its token.
    async fn session(&self, pillars: Json) -> (String, String) {
        let path = format!("{SESSIONS}?user=ann");
        let made: Json = self.service.post(&path, &json!({ "pillars": pillars })).await.unwrap();
        assert_eq!(made["pillars"], pillars);
        let token = made["token"].as_str().unwrap().to_owned();
        (format!("{SESSIONS}/{}", made["id"].as_str().unwrap()), token)
    }

    async fn works_in(&self, path: &str, pillars: Json) {
        let changed: Json = self.service.patch(path, &json!({ "pillars": pillars })).await.unwrap();
        assert_eq!(changed["pillars"], pillars);
    }

    async fn connect(&self, token: &str) -> Socket {
        Socket::connect(&self.server.base(), token).await
    }

    async fn listed(&self, query: &str) -> Vec<Json> {
        let answer: Json = self.service.get(&format!("{CONNECTIONS}{query}")).await.unwrap();
        answer["connections"].as_array().unwrap().clone()
    }
}

async fn subscribes(socket: &mut Socket, channel: &str) -> Json {
    match socket.ask("subscribe", json!({ "channel": channel })).await {
        Ok(_) => json!(0),
        Err(error) => error["code"].clone(),
    }
}

/// The next push is the end of the subscription to this channel.
async fn ends(socket: &mut Socket, channel: &str) {
    let told = socket.push().await;
    let told = (&told["channel"], &told["unsubscribe"]["code"]);
    assert_eq!(told, (&json!(channel), &json!(2502)));
}

#[tokio::test]
async fn a_pillar_opens_what_its_namespace_says_as_long_as_the_session_works_in_it() {
    let ground = Ground::new().await;
    let (path, token) = ground.session(json!(["content", "editing"])).await;
    let (_, plain) = ground.session(json!([])).await;
    let mut ann = ground.connect(&token).await;
    let mut other = ground.connect(&plain).await;
    for (channel, expected) in [("content:1", 0), ("insights:1", 103), ("room", 0)] {
        assert_eq!(subscribes(&mut ann, channel).await, expected, "{channel}");
    }
    assert_eq!(subscribes(&mut other, "content:1").await, 103);
    let hello = json!({ "channel": "content:1", "data": "hello" });
    assert_eq!(other.ask("publish", hello.clone()).await.unwrap_err()["code"], 103);
    ann.ask("publish", hello.clone()).await.unwrap();
    assert_eq!(ann.push().await["pub"]["data"], "hello");
    let asked = json!({ "channel": "content:1" });
    for command in ["history", "presence"] {
        assert!(ann.ask(command, asked.clone()).await.is_ok());
        assert_eq!(other.ask(command, asked.clone()).await.unwrap_err()["code"], 103);
    }
    // Documents and requests as well.
    let base = ground.server.base();
    let [by_token, by_plain] = [&token, &plain].map(|token| Client::new(&base, token).unwrap());
    let document = "/crosstown/v1/state/pillar/content/entries/title";
    let _: Json = by_token.put(document, &json!("tram")).await.unwrap();
    let denied = by_plain.get::<Json>(document).await.unwrap_err();
    assert_eq!(denied.code(), Some("forbidden"));
    let who: Json = by_token.get(WHO).await.unwrap();
    assert_eq!(who["pillars"], json!(["content", "editing"]));

    // What it works in no more it follows no more; what it did not stand on goes on.
    ground.works_in(&path, json!(["insights"])).await;
    ends(&mut ann, "content:1").await;
    assert_eq!(ann.ask("history", asked.clone()).await.unwrap_err()["code"], 103);
    assert_eq!(ann.ask("publish", hello).await.unwrap_err()["code"], 103);
    assert_eq!(subscribes(&mut ann, "insights:1").await, 0);
    assert_eq!(subscribes(&mut ann, "content:1").await, 103);
    let room = json!({ "channel": "room", "data": 1 });
    other.ask("publish", room).await.unwrap();
    assert_eq!(ann.push().await["channel"], "room");
    let who: Json = by_token.get(WHO).await.unwrap();
    assert_eq!(who["pillars"], json!(["insights"]), "nothing remembers what it was");
    let denied = by_token.get::<Json>(document).await.unwrap_err();
    assert_eq!(denied.code(), Some("forbidden"));
    let read: Json = ground.service.get(&path).await.unwrap();
    assert_eq!(read["pillars"], json!(["insights"]));
}

#[tokio::test]
async fn nobody_gives_himself_a_pillar() {
    let ground = Ground::new().await;
    let (path, token) = ground.session(json!(["content"])).await;
    let ann = ground.server.client("acme", "ann");
    let by_token = Client::new(&ground.server.base(), &token).unwrap();
    let boss = ground.server.token_with("acme", "ann", json!({ "roles": ["admin"] }));
    let boss = Client::new(&ground.server.base(), &boss).unwrap();
    let claimed = ground.server.token_with("acme", "ann", json!({ "pillars": ["content"] }));
    let claimed = Client::new(&ground.server.base(), &claimed).unwrap();
    for pillars in [json!(["insights"]), json!(["content"]), json!([])] {
        let wish = json!({ "pillars": pillars });
        for own in [&ann, &by_token, &claimed] {
            let patched = own.patch::<Json>(&path, &wish).await.unwrap_err();
            assert_eq!(patched.code(), Some("forbidden"), "{wish}");
            if pillars != json!([]) {
                let made = own.post::<Json>(SESSIONS, &wish).await.unwrap_err();
                assert_eq!(made.code(), Some("forbidden"), "{wish}");
            }
        }
    }
    let who: Json = by_token.get(WHO).await.unwrap();
    assert_eq!(who["pillars"], json!(["content"]));
    // What else there is to change goes on as before, and changes no pillar.
    let changed: Json = ann.patch(&path, &json!({ "metadata": { "a": 1 } })).await.unwrap();
    assert_eq!(changed["pillars"], json!(["content"]));
    let _: Json = boss.patch(&path, &json!({ "pillars": ["insights"] })).await.unwrap();

    let many: Vec<String> = (0..17).map(|n| format!("p{n}")).collect();
    for bad in [json!(many), json!(["a b"]), json!([""]), json!("content"), json!([1])] {
        let wish = json!({ "pillars": bad });
        for refused in [
            ground.service.patch::<Json>(&path, &wish).await,
            ground.service.post::<Json>(SESSIONS, &wish).await,
        ] {
            assert_eq!(refused.unwrap_err().code(), Some("bad_request"), "{wish}");
        }
    }
    let foreign = ground.server.api_key("other", "crm").await;
    let foreign = Client::new(&ground.server.base(), &foreign).unwrap();
    let wish = json!({ "pillars": ["content"] });
    assert_eq!(foreign.patch::<Json>(&path, &wish).await.unwrap_err().code(), Some("not_found"));
}

#[tokio::test]
async fn a_token_names_pillars_beside_those_of_its_session() {
    let ground = Ground::new().await;
    let (path, _) = ground.session(json!(["content"])).await;
    let session = path.rsplit('/').next().unwrap();
    let token = |more: Json| ground.server.token_with("acme", "ann", more);
    let with = token(json!({ "session": session, "pillars": ["insights"] }));
    let without = token(json!({ "session": session }));
    let mut ann = ground.connect(&with).await;
    for channel in ["content:1", "insights:1"] {
        assert_eq!(subscribes(&mut ann, channel).await, 0, "{channel}");
    }
    let shown = &ground.listed("").await[0];
    assert_eq!(shown["pillars"], json!(["content", "insights"]));
    // A fresh token takes back what the last one named, and nothing else.
    ann.ask("refresh", json!({ "token": without })).await.unwrap();
    ends(&mut ann, "insights:1").await;
    assert_eq!(subscribes(&mut ann, "insights:1").await, 103);
    ground.works_in(&path, json!([])).await;
    ends(&mut ann, "content:1").await;
    // And the end of the session's leaves those of the token.
    ann.ask("refresh", json!({ "token": with })).await.unwrap();
    assert_eq!(subscribes(&mut ann, "insights:1").await, 0);
    ground.works_in(&path, json!(["content"])).await;
    ground.works_in(&path, json!([])).await;
    ann.ask("ping", json!({})).await.unwrap();
    assert_eq!(ann.push_now(), None);
    let bad = token(json!({ "pillars": "content" }));
    let answer = Client::new(&ground.server.base(), &bad).unwrap().get::<Json>(WHO).await;
    assert_eq!(answer.unwrap_err().code(), Some("unauthenticated"));

    // Of a session that a connection without one is bound to, too.
    let mut bob = ground.connect(&ground.server.token("acme", "bob")).await;
    let shown = &ground.listed("?user=bob").await[0];
    let path = format!("{SESSIONS}/{}", shown["session"].as_str().unwrap());
    assert_eq!(subscribes(&mut bob, "content:1").await, 103);
    ground.works_in(&path, json!(["content"])).await;
    assert_eq!(subscribes(&mut bob, "content:1").await, 0);
    let mut again = ground.connect(&ground.server.token("acme", "bob")).await;
    assert_eq!(subscribes(&mut again, "content:1").await, 0);
}

#[tokio::test]
async fn connections_are_shown_and_ordered_by_pillar() {
    let ground = Ground::new().await;
    let (path, token) = ground.session(json!(["content"])).await;
    let (_, plain) = ground.session(json!(["insights"])).await;
    let mut ann = ground.connect(&token).await;
    let mut other = ground.connect(&plain).await;
    let more = json!({ "pillars": ["content"] });
    let mut eve = ground.connect(&ground.server.token_with("other", "eve", more)).await;
    assert_eq!(ground.listed("").await.len(), 2);
    let [shown] = &ground.listed("?pillar=content").await[..] else { panic!("not one") };
    assert_eq!(shown["pillars"], json!(["content"]));
    assert_eq!(ground.listed("?pillar=content&user=bob").await, [] as [Json; 0]);
    assert_eq!(ground.listed("?pillar=other").await, [] as [Json; 0]);
    let wrong = ground.service.get::<Json>(&format!("{CONNECTIONS}?pillar=a%20b")).await;
    assert_eq!(wrong.unwrap_err().code(), Some("bad_request"));

    let ordered = async |order: Json| {
        let body = json!({ "to": { "pillar": "content" }, "order": order });
        let told: Json =
            ground.service.post(&format!("{CONNECTIONS}/orders"), &body).await.unwrap();
        told["connections"].clone()
    };
    assert_eq!(ordered(json!({ "do": "send", "data": 7 })).await, 1);
    assert_eq!(ann.push().await["message"]["data"], 7);
    assert_eq!(ordered(json!({ "do": "subscribe", "channel": "insights:9" })).await, 1);
    assert_eq!(ann.push().await["channel"], "insights:9");
    assert_eq!(ordered(json!({ "do": "unsubscribe", "channel": "insights:9" })).await, 1);
    assert_eq!(ann.push().await["unsubscribe"]["code"], 2000);
    // What the order stands on is not what it works in.
    assert_eq!(ordered(json!({ "do": "subscribe", "channel": "insights:9" })).await, 1);
    assert_eq!(ann.push().await["channel"], "insights:9");
    ground.works_in(&path, json!(["ops"])).await;
    ann.ask("ping", json!({})).await.unwrap();
    assert_eq!(ann.push_now(), None);
    assert_eq!(ordered(json!({ "do": "disconnect" })).await, 0);
    ground.works_in(&path, json!(["content"])).await;
    assert_eq!(ordered(json!({ "do": "disconnect" })).await, 1);
    assert_eq!(ann.close_code().await, 3503);
    for socket in [&mut other, &mut eve] {
        socket.ask("ping", json!({})).await.unwrap();
        assert_eq!(socket.push_now(), None);
    }
}
