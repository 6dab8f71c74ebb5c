//! Commands draw on the limits that requests draw on.

use integration_tests::{Server, Socket};
use serde_json::json;

#[tokio::test]
async fn commands_are_charged_to_their_user() {
    let server = Server::start(
        "[[limits]]\nname = \"commands\"\nper = \"user\"\nrequests = 5\nperiod = \"1h\"\n\
         routes = [\"_commands\"]\n",
    );
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut again = Socket::connect(&base, &server.token("acme", "ann")).await;
    let publish = || json!({ "channel": "room", "data": 1 });
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    for _ in 0..2 {
        ann.ask("publish", publish()).await.unwrap();
        again.ask("publish", publish()).await.unwrap();
    }
    for socket in [&mut ann, &mut again] {
        let refused = socket.ask("publish", publish()).await.unwrap_err();
        assert_eq!((&refused["code"], &refused["temporary"]), (&json!(111), &json!(true)));
        assert!(refused["message"].as_str().unwrap().contains("rate_limited"), "{refused}");
        let refused = socket.rpc("session.get", json!({})).await.unwrap_err();
        assert_eq!(refused["code"], 111);
        // What ends something is free, and so are pings.
        socket.ask("unsubscribe", json!({ "channel": "room" })).await.unwrap();
        socket.ask("ping", json!({})).await.unwrap();
    }
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    bob.ask("publish", publish()).await.unwrap();
    // Requests are charged to limits of their own routes.
    let client = server.client("acme", "ann");
    let answer = client.call(http::Method::GET, "/crosstown/v1/sessions", None).await.unwrap();
    assert_eq!(answer.status, 200);
}
