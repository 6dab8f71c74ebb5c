//! Subscribers that choose publications by their tags.

use http::Method;
use integration_tests::{Server, Socket};
use serde_json::json;

#[tokio::test]
async fn a_filter_lets_through_what_is_wanted() {
    let server =
        Server::start("[[realtime.namespaces]]\nname = \"ticks\"\nfilter = true\ndelta = true\n");
    let base = server.base();
    let service = server.token_with("acme", "feed", json!({ "kind": "service" }));
    let service = client::Client::new(&base, &service).unwrap();
    let publish = async |query: &str, data: &str| {
        let path = format!("/crosstown/v1/channels/ticks:1/publications{query}");
        let body = Some(data.as_bytes().to_vec());
        service.call(Method::POST, &path, body).await.unwrap().status
    };
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let filter = json!({ "op": "and", "nodes": [
        { "key": "ticker", "cmp": "in", "vals": ["AAPL", "GOOG"] },
        { "key": "price", "cmp": "gte", "val": "100" },
    ] });
    let with = |filter| json!({ "channel": "ticks:1", "tf": filter });
    let stands = ann.ask("subscribe", with(filter.clone())).await.unwrap();
    let told = [
        ("?tag=ticker:AAPL&tag=price:99.5", "1"),
        ("?tag=ticker:AAPL&tag=price:100", "2"),
        ("?tag=ticker:MSFT&tag=price:200", "3"),
        ("", "4"),
        ("?tag=ticker:GOOG&tag=price:1e3&tag=note:a%3Ab%20c", "5"),
    ];
    for (query, data) in told {
        assert_eq!(publish(query, data).await, 201);
    }
    let first = ann.push().await;
    assert_eq!((&first["pub"]["data"], &first["pub"]["offset"]), (&json!(2), &json!(2)));
    let second = ann.push().await;
    assert_eq!((&second["pub"]["data"], &second["pub"]["offset"]), (&json!(5), &json!(5)));
    assert_eq!(second["pub"]["tags"]["note"], "a:b c");

    // What was missed is chosen likewise, and that is all of it.
    drop(ann);
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut recover = with(filter.clone());
    recover["recover"] = json!(true);
    recover["epoch"] = stands["epoch"].clone();
    let again = ann.ask("subscribe", recover).await.unwrap();
    assert_eq!((&again["recovered"], &again["offset"]), (&json!(true), &json!(5)));
    let missed: Vec<_> =
        again["publications"].as_array().unwrap().iter().map(|one| &one["data"]).collect();
    assert_eq!(missed, [&json!(2), &json!(5)]);

    // Whatever is no filter is refused, and so is one where there are none.
    ann.ask("unsubscribe", json!({ "channel": "ticks:1" })).await.unwrap();
    for (body, code) in [
        (with(json!({ "op": "xor" })), 107),
        (with(json!({ "key": "price", "cmp": "lt", "val": "much" })), 107),
        (json!({ "channel": "ticks:1", "delta": "fossil", "tf": filter }), 107),
        (json!({ "channel": "room", "tf": filter }), 108),
    ] {
        assert_eq!(ann.ask("subscribe", body.clone()).await.unwrap_err()["code"], code, "{body}");
    }
    let many: Vec<_> = (0..17).map(|n| format!("tag=t{n}:x")).collect();
    for query in [
        "?tag=ticker",
        "?tag=a:1&tag=a:2",
        "?other=a:1",
        "?tag=:x",
        &format!("?{}", many.join("&")),
    ] {
        assert_eq!(publish(query, "0").await, 400, "{query}");
    }
}
