//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) as structured fields
//! (RFC 9651), and whether what they say is true.

use super::{WHOAMI, ready};
use client::{Answer, Client};
use http::Method;
use integration_tests::Server;
use sfv::{KeyRef, ListEntry, Parser};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The items of a list: their names and their parameters that are whole numbers.
type Items = BTreeMap<String, BTreeMap<String, i64>>;

fn items(answer: &Answer, field: &str) -> Items {
    let mut values = answer.headers.get_all(field).iter();
    let value = values.next().unwrap_or_else(|| panic!("there is no {field}"));
    assert!(values.next().is_none(), "{field} stands once");
    let list: sfv::List = Parser::new(value.as_bytes()).parse().expect("a list");
    let mut items = Items::new();
    for entry in list {
        let ListEntry::Item(item) = entry else { panic!("an inner list in {field}") };
        let name = item.bare_item.as_string().expect("a string").as_str().to_owned();
        let numbers = item.params.iter().filter_map(|(key, value)| {
            assert!(
                ["q", "w", "r", "t", "qu"]
                    .map(|key| KeyRef::from_str(key).unwrap())
                    .contains(&&**key)
            );
            Some((key.as_str().to_owned(), i64::from(value.as_integer()?)))
        });
        assert!(items.insert(name, numbers.collect()).is_none(), "a policy stands once");
    }
    items
}

/// Checks the fields of an answer, and gives the policies and the limit that it tells of.
fn check(answer: &Answer) -> (Items, String, i64, i64) {
    let (policies, limits) = (items(answer, "ratelimit-policy"), items(answer, "ratelimit"));
    let (name, limit) = limits.into_iter().next().expect("a limit");
    let policy = &policies[&name];
    let (remaining, reset) = (limit["r"], limit["t"]);
    assert!((0..=policy["q"]).contains(&remaining), "{policies:?} {limit:?}");
    assert!((0..=policy["w"]).contains(&reset), "{policies:?} {limit:?}");
    match answer.headers.get("retry-after") {
        None => assert_eq!(answer.status, 200),
        Some(wait) => {
            assert_eq!(answer.status, 429);
            let wait: i64 = wait.to_str().unwrap().parse().unwrap();
            assert!((1..=reset.max(1)).contains(&wait), "{wait}, and {reset} to the reset");
        }
    }
    (policies, name, remaining, reset)
}

async fn ask(caller: &Client) -> Answer {
    caller.call(Method::GET, WHOAMI, None).await.unwrap()
}

const LIMITS: &str = "[[limits]]\nname = \"burst\"\nper = \"user\"\nrequests = 20\n\
    period = \"10s\"\nburst = 2\n[[limits]]\nname = \"a.b-c_d\"\nper = \"tenant\"\nrequests = 100\n\
    period = \"1m\"\n[[limits]]\nname = \"bytes\"\nper = \"user\"\nrequests = 1000000\n\
    period = \"1h\"\ncost = \"bytes\"\n[[limits]]\nname = \"day\"\nper = \"user\"\nquota = 50\n\
    period = \"day\"\n[[limits]]\nname = \"largest\"\nper = \"ip\"\nquota = 999999999999999\n\
    period = \"week\"\n";

#[tokio::test]
async fn answers_and_refusals_of_several_policies_are_structured_fields() {
    let server = Server::start(LIMITS);
    ready(&server).await;
    let (ann, mut seen) = (server.client("acme", "ann"), Vec::new());
    for _ in 0..8 {
        let answer = ask(&ann).await;
        let (policies, name, remaining, _) = check(&answer);
        let told = |name: &str| (policies[name]["q"], policies[name]["w"]);
        assert_eq!(policies.len(), 5);
        assert_eq!(told("burst"), (20, 10));
        assert_eq!(told("a.b-c_d"), (100, 60));
        assert_eq!(told("bytes"), (1_000_000, 3_600));
        assert_eq!(told("day"), (50, 86_400));
        assert_eq!(told("largest"), (999_999_999_999_999, 7 * 86_400));
        assert_eq!(name, "burst", "it is the tightest");
        seen.push((answer.status.as_u16(), remaining));
    }
    assert!(seen.contains(&(200, 1)) && seen.contains(&(429, 0)), "{seen:?}");
    let body = |answer: &Answer| serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap();
    let refused = loop {
        let answer = ask(&ann).await;
        if answer.status == 429 {
            break answer;
        }
    };
    assert_eq!(body(&refused)["limit"], "burst");
}

#[tokio::test]
async fn what_the_fields_promise_is_kept_and_not_earlier() {
    let limits = "[[limits]]\nname = \"slow\"\nper = \"user\"\nrequests = 2\nperiod = \"4s\"\n";
    let server = Server::start(limits);
    ready(&server).await;
    for user in ["ann", "bob"] {
        let caller = server.client("acme", user);
        let begun = Instant::now();
        assert_eq!(check(&ask(&caller).await).2, 1);
        assert_eq!(check(&ask(&caller).await).2, 0);
        let refused = ask(&caller).await;
        let told = Instant::now();
        let (_, _, _, reset) = check(&refused);
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        // A request every two seconds: the first of them has come free by then at the latest.
        assert!(wait <= 2 && reset <= 4, "{wait} and {reset}");
        loop {
            let (before, answer) = (Instant::now(), ask(&caller).await);
            if answer.status == 200 {
                let earliest = begun + Duration::from_secs(2);
                assert!(Instant::now() >= earliest, "it was let in too early");
                break;
            }
            let due = told + Duration::from_secs(wait);
            assert!(before < due, "it was refused when it was told to come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // After a pause as long as the field says, all of it is there.
        let (_, _, _, reset) = check(&ask(&caller).await);
        tokio::time::sleep(Duration::from_secs(u64::try_from(reset).unwrap())).await;
        assert_eq!(check(&ask(&caller).await).2, 1);
        assert_eq!(ask(&caller).await.status, 200);
    }
}
