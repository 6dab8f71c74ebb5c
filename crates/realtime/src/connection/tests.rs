use super::*;
use types::TenantId;

/// A connection with one subscription that stands.
fn subscribed(joins: bool, encoding: Encoding) -> (Connection, Channel) {
    let connection = Connection::new(ConnectionId(7), encoding, 1024);
    let channel = Channel::new(&TenantId::new("acme").unwrap(), "lobby").unwrap();
    let subscription = Subscription {
        channel: channel.clone(),
        state: State::Live { life: 1, offset: 3 },
        announced: Announce::default(),
        joins,
        granted: None,
    };
    connection.subscriptions.borrow_mut().push(subscription);
    (connection, channel)
}

fn push(channel: &Channel, written: impl Fn(Encoding) -> bool) -> Frames {
    let info = ClientInfo { user: "ann".into(), client: "con_7".into() };
    Frames::of(&joined_push(channel, &Joined::Join(info)), written)
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
    let frames = push(&channel, |_| true);
    connection.deliver(&channel, &frames, 3);
    assert_eq!(connection.queue.take(1024), None, "the client has it already");
    connection.deliver(&channel, &frames, 4);
    assert_eq!(connection.queue.take(1024).as_ref(), frames.get(Encoding::Protobuf));
    // Without a frame for it, the client has to start again: nothing is left out silently.
    connection.deliver(&channel, &push(&channel, |encoding| encoding == Encoding::Json), 5);
    assert_eq!(connection.closing.get(), Some(Disconnect::InsufficientState));
}
