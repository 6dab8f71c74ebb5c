use super::*;
use crate::frame::Forms;
use crate::{Slow, presence::Announce};
use protocol::client::{ConnectResult, Empty, Publication, Push};
use types::TenantId;

fn origin() -> Origin {
    Origin { ip: [127, 0, 0, 1].into(), since: Timestamp(0), emulated: false }
}

fn untraced() -> Rc<Tracer> {
    Rc::new(Tracer::new(clock::SystemClock::shared()))
}

/// A connection with one subscription that stands.
fn subscribed(joins: bool, encoding: Encoding) -> (Connection, Channel) {
    subscribed_by(joins, encoding, None)
}

fn subscribed_by(
    joins: bool,
    encoding: Encoding,
    out: Option<Rc<Outlet>>,
) -> (Connection, Channel) {
    let connection = Connection::new(ConnectionId(7), encoding, origin(), 1024, untraced(), out);
    let channel = Channel::new(&TenantId::new("acme").unwrap(), "lobby").unwrap();
    let subscription = Subscription {
        channel: channel.clone(),
        state: State::Live { life: 1, offset: 3 },
        announced: Announce::default(),
        joins,
        compact: false,
        delta: false,
        based: false,
        map: false,
        slow: Slow::Disconnect,
        filter: None,
        reader: None,
        waiting: None,
        granted: None,
    };
    connection.subscriptions.borrow_mut().push(subscription);
    (connection, channel)
}

fn push(channel: &Channel, written: impl Fn(Dialect) -> bool) -> Frames {
    let info = ClientInfo { user: "ann".into(), client: "con_7".into(), ..ClientInfo::default() };
    Frames::of(joined_push(channel, &Joined::Join(info)), 5, written)
}

#[test]
fn who_comes_is_told_to_others_that_want_to_know() {
    // Its own join stands behind the answer to `subscribe`, and comes no second time.
    for (joins, client, expected) in [(true, 7, false), (true, 8, true), (false, 8, false)] {
        let (connection, channel) = subscribed(joins, Encoding::Json);
        let frames = push(&channel, |_| true);
        connection.deliver_joined(&channel, &frames, Some(ConnectionId(client)));
        let told = connection.queue.take(1024).is_some();
        assert_eq!(told, expected, "joins {joins}, client {client}");
    }
}

#[test]
fn a_publication_comes_once_and_in_the_connections_encoding() {
    let (connection, channel) = subscribed(false, Encoding::Protobuf);
    let protobuf =
        Dialect { map: false, delta: false, compact: false, encoding: Encoding::Protobuf };
    let frames = push(&channel, |_| true);
    connection.deliver(&channel, &frames, 3, &About::default(), 1);
    assert_eq!(connection.queue.take(1024), None, "the client has it already");
    connection.deliver(&channel, &frames, 4, &About::default(), 1);
    assert_eq!(connection.queue.take(1024).as_ref(), frames.get(protobuf, false));
    // Without a frame for it, the client has to start again: nothing is left out silently.
    connection.deliver(
        &channel,
        &push(&channel, |dialect| dialect != protobuf),
        5,
        &About::default(),
        1,
    );
    assert_eq!(connection.closing.get(), Some(Disconnect::InsufficientState));
}

#[test]
fn a_difference_comes_only_to_those_who_have_what_it_differs_from() {
    let (connection, channel) = subscribed(false, Encoding::Json);
    for held in &mut *connection.subscriptions.borrow_mut() {
        (held.compact, held.delta) = (true, true);
    }
    let data = serde_json::value::to_raw_value(&"new").unwrap();
    let told = Publication { data, offset: 4, ..Publication::default() };
    let forms = Forms { told, delta: Some("what differs".into()), update: None };
    let frames = Frames::of_publication(channel.name(), forms, 5, |_| true);
    let told = [
        r#"{"push":{"id":5,"pub":{"data":"\"new\"","offset":4}}}"#,
        r#"{"push":{"id":5,"pub":{"data":"what differs","offset":4,"delta":true}}}"#,
    ];
    for (offset, told) in (4..).zip(told) {
        connection.deliver(&channel, &frames, offset, &About::default(), 1);
        let frame = connection.queue.take(1024).unwrap();
        assert_eq!(std::str::from_utf8(frame.as_bytes()).unwrap(), told);
    }
}

#[test]
fn a_map_is_told_of_entries_and_a_stream_of_changes() {
    let data = |text: &str| serde_json::value::to_raw_value(text).unwrap();
    let told = Publication { data: data("change"), offset: 4, ..Publication::default() };
    let key = "k".into();
    let update = Publication { data: data("value"), key, offset: 4, ..Publication::default() };
    for (map, expected) in [
        (true, r#"{"push":{"channel":"lobby","pub":{"data":"value","offset":4,"key":"k"}}}"#),
        (false, r#"{"push":{"channel":"lobby","pub":{"data":"change","offset":4}}}"#),
    ] {
        let (connection, channel) = subscribed(false, Encoding::Json);
        connection.subscriptions.borrow_mut()[0].map = map;
        let forms = Forms { told: told.clone(), delta: None, update: Some(update.clone()) };
        let frames = Frames::of_publication(channel.name(), forms, 5, |_| true);
        connection.deliver(&channel, &frames, 4, &About::default(), 1);
        let frame = connection.queue.take(1024).unwrap();
        assert_eq!(std::str::from_utf8(frame.as_bytes()).unwrap(), expected);
    }
}

#[test]
fn values_that_wait_for_a_slow_client_are_few() {
    let (connection, channel) = subscribed(false, Encoding::Json);
    let other = Channel::new(&TenantId::new("acme").unwrap(), "other").unwrap();
    let mut second = connection.subscriptions.borrow_mut().pop().unwrap();
    second.slow = Slow::Conflate;
    second.channel = other.clone();
    let (first, _) = subscribed(false, Encoding::Json);
    let mut first = first.subscriptions.borrow_mut().pop().unwrap();
    first.slow = Slow::Conflate;
    connection.subscriptions.borrow_mut().extend([first, second]);
    let value = |length: usize| {
        let data = serde_json::value::to_raw_value(&"x".repeat(length)).unwrap();
        let publication = Some(Box::new(Publication { data, ..Publication::default() }));
        Frames::of(Push { publication, ..Push::default() }, 5, |_| true)
    };
    // As long as the client is not behind, nothing waits.
    for frames in [value(600), value(100), value(200)] {
        connection.deliver(&channel, &frames, 0, &About::default(), 1);
    }
    let taken = |most| connection.queue.take(most).map(|frame| frame.len());
    assert!(taken(1).is_some_and(|bytes| bytes > 600));
    assert!(connection.release(), "the newest of those that waited");
    assert!(taken(1).is_some_and(|bytes| (200..300).contains(&bytes)));
    assert!(!connection.release() && taken(1).is_none());
    connection.deliver(&channel, &value(600), 0, &About::default(), 1);
    connection.deliver(&channel, &value(300), 0, &About::default(), 1);
    assert_eq!(connection.closing.get(), None);
    connection.deliver(&other, &value(300), 0, &About::default(), 1);
    assert_eq!(connection.closing.get(), Some(Disconnect::Slow));
}

#[test]
fn connect_is_answered_first_and_with_every_subscription_of_the_server() {
    let connection =
        Connection::new(ConnectionId(7), Encoding::Json, origin(), 1024, untraced(), None);
    let channel = |name| Channel::new(&TenantId::new("acme").unwrap(), name).unwrap();
    connection.open(1, ConnectResult::default(), 2);
    connection.reply(2, Body::Ping(Empty {}));
    connection.began(&channel("a"), SubscribeResult::default());
    assert!(connection.is_opening() && connection.queue.take(1).is_none());
    connection.began(&channel("b"), SubscribeResult::default());
    assert!(!connection.is_opening());
    let told = || {
        let frame = connection.queue.take(1).unwrap();
        String::from_utf8(frame.as_bytes().to_vec()).unwrap()
    };
    let (first, second) = (told(), told());
    assert!(first.contains(r#""id":1"#) && first.contains(r#""subs":{"a":{},"b":{}}"#), "{first}");
    assert!(second.contains(r#""id":2"#), "{second}");
}

#[test]
fn an_answer_to_connect_recovers_no_more_than_the_queue_holds() {
    let connection =
        Connection::new(ConnectionId(7), Encoding::Json, origin(), 1024, untraced(), None);
    connection.open(1, ConnectResult::default(), 2);
    for name in ["a", "b"] {
        let data = serde_json::value::to_raw_value(&"x".repeat(300)).unwrap();
        let publications = vec![Publication { data, offset: 1, ..Publication::default() }];
        let result = SubscribeResult { publications, recovered: true, ..Default::default() };
        let channel = Channel::new(&TenantId::new("acme").unwrap(), name).unwrap();
        connection.began(&channel, result);
    }
    let frame = connection.queue.take(4096).expect("an answer");
    let answer: serde_json::Value = serde_json::from_slice(frame.as_bytes()).unwrap();
    let subs = &answer["connect"]["subs"];
    let told = |name: &str| (subs[name]["recovered"].clone(), subs[name]["publications"].clone());
    assert_eq!((told("a").0, told("a").1.as_array().map(Vec::len)), (true.into(), Some(1)));
    assert_eq!(told("b"), (serde_json::Value::Null, serde_json::Value::Null), "it is said");
}

#[tokio::test]
async fn the_hub_writes_the_first_of_a_turn_if_nothing_waits() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = transport::Stream::from(listener.accept().await.unwrap().0);
    let (_read, write) = server.into_halves();
    std::future::poll_fn(|cx| write.poll_write_ready(cx)).await.unwrap();
    let out = Rc::new(Outlet::new(write));
    let (connection, channel) = subscribed_by(false, Encoding::Json, Some(out));
    let frames = push(&channel, |_| true);
    let json = Dialect { encoding: Encoding::Json, compact: false, delta: false, map: false };
    let frame = frames.get(json, false).unwrap();
    let deliver = |offset, turn| {
        connection.deliver(&channel, &frames, offset, &About::default(), turn);
        !connection.queue.is_empty()
    };
    assert!(!deliver(4, 1), "it is written");
    let mut told = vec![0; frame.framed().len()];
    std::io::Read::read_exact(&mut client, &mut told).unwrap();
    assert_eq!(told, **frame.framed());
    assert!(deliver(5, 1), "the second of a turn waits, to be joined with others");
    assert!(deliver(6, 2), "nothing overtakes what waits");
    let joined = connection.queue.take(1024).unwrap();
    assert_eq!(joined.as_bytes().split(|byte| *byte == b'\n').count(), 2);
    assert!(!deliver(7, 3), "it is written again");
}
