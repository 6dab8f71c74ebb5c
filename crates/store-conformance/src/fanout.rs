//! The promises of a fan-out, checked over two nodes.

use crate::harness::{KIND, tenant};
use bytes::Bytes;
use std::{any::Any, time::Duration};
use store::{
    Error, Kind, SUBSCRIPTION_MESSAGES_MAX, SharedFanout, Subscription, Told, Topic, bounds,
};

/// Two nodes that share a fan-out; within one process they may be the same.
pub struct Pair {
    one: SharedFanout,
    other: SharedFanout,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Pair {
    /// Two nodes.
    #[must_use]
    pub fn new(one: SharedFanout, other: SharedFanout) -> Self {
        Self { one, other, _kept: None }
    }

    /// Keeps `thing`, for instance a server, until the test has ended.
    #[must_use]
    pub fn keep(mut self, thing: impl Any + Send + Sync) -> Self {
        self._kept = Some(Box::new(thing));
        self
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(tenant("tenant"), KIND, name).unwrap()
}

async fn say(fanout: &SharedFanout, name: &str, message: impl Into<Bytes>) {
    fanout.publish(&topic(name), message.into()).await.unwrap();
}

/// The next message, as text.
async fn heard(from: &mut Subscription) -> (Topic, String) {
    loop {
        if let Told::Message { topic, message } = from.next().await {
            return (topic, String::from_utf8(message.to_vec()).unwrap());
        }
    }
}

async fn is_silent(from: &mut Subscription) -> bool {
    tokio::time::timeout(Duration::from_millis(100), heard(from)).await.is_err()
}

/// A message reaches every subscription to its topic, on every node, once.
pub async fn a_message_reaches_every_subscription_once(pair: Pair) {
    let mut all = Vec::new();
    for node in [&pair.one, &pair.other, &pair.other] {
        all.push(node.subscribe(&[topic("a"), topic("a"), topic("b")]).await.unwrap());
    }
    say(&pair.one, "a", "first").await;
    say(&pair.one, "b", "second").await;
    for each in &mut all {
        let mut both = [heard(each).await, heard(each).await];
        both.sort();
        assert_eq!(both, [(topic("a"), "first".into()), (topic("b"), "second".into())]);
        assert!(is_silent(each).await, "a message came twice");
    }
}

/// Topics, kinds and tenants whose names run together are heard apart.
pub async fn topics_are_heard_apart(pair: Pair) {
    let others = [
        topic(""),
        topic("aa"),
        topic("a\0"),
        topic("{a}"),
        Topic::new(tenant("tenant"), Kind::new("kinda"), "").unwrap(),
        Topic::new(tenant("tenan"), Kind::new("tkind"), "a").unwrap(),
    ];
    let mut own = pair.one.subscribe(&[topic("a")]).await.unwrap();
    let mut rest = pair.one.subscribe(&others).await.unwrap();
    for other in &others {
        pair.other.publish(other, "no".into()).await.unwrap();
    }
    say(&pair.other, "a", "yes").await;
    assert_eq!(heard(&mut own).await, (topic("a"), "yes".to_owned()));
    assert!(is_silent(&mut own).await);
    let mut found = Vec::new();
    for _ in &others {
        found.push(heard(&mut rest).await.0);
    }
    found.sort();
    let mut wanted = others.to_vec();
    wanted.sort();
    assert_eq!(found, wanted);
}

/// What one caller says about one topic is heard in order, and whole.
pub async fn messages_of_a_topic_come_in_order(pair: Pair) {
    let mut here = pair.one.subscribe(&[topic("a")]).await.unwrap();
    let mut there = pair.other.subscribe(&[topic("a")]).await.unwrap();
    for at in 0..300 {
        say(&pair.one, "a", at.to_string()).await;
    }
    for from in [&mut here, &mut there] {
        for at in 0..300 {
            assert_eq!(heard(from).await.1, at.to_string());
        }
    }
    let large = vec![7; bounds::VALUE_BYTES_MAX];
    say(&pair.one, "a", large.clone()).await;
    assert_eq!(heard(&mut there).await.1.into_bytes(), large);
    let empty = Bytes::new();
    say(&pair.one, "a", empty).await;
    assert_eq!(heard(&mut there).await.1, "");
}

/// What is said after a subscription was answered is heard.
pub async fn a_subscription_begins_when_it_is_answered(pair: Pair) {
    for round in 0..20 {
        say(&pair.other, "a", "before").await;
        let mut here = pair.one.subscribe(&[topic("a")]).await.unwrap();
        say(&pair.other, "a", round.to_string()).await;
        let mut said = heard(&mut here).await.1;
        if said == "before" {
            // Still on its way to the subscription of the last round, which is allowed.
            said = heard(&mut here).await.1;
        }
        assert_eq!(said, round.to_string());
    }
}

/// A slow reader is told that it missed something, holds up nobody, and goes on.
pub async fn a_slow_reader_is_told_that_it_missed_something(pair: Pair) {
    let mut slow = pair.one.subscribe(&[topic("a")]).await.unwrap();
    let mut quick = pair.other.subscribe(&[topic("a")]).await.unwrap();
    let total = SUBSCRIPTION_MESSAGES_MAX + 100;
    for at in 0..total {
        say(&pair.other, "a", at.to_string()).await;
        assert_eq!(heard(&mut quick).await.1, at.to_string());
    }
    // The last one has come once it is heard beside the slow reader.
    let mut missed = false;
    let mut last = None;
    while last != Some(total - 1) {
        match slow.next().await {
            Told::MayHaveMissed => missed = true,
            Told::Message { message, .. } => {
                let at: usize = std::str::from_utf8(&message).unwrap().parse().unwrap();
                assert!(missed || at == last.map_or(0, |last| last + 1), "missed without a word");
                assert!(last.is_none_or(|last| last < at), "went back");
                (last, missed) = (Some(at), false);
            }
        }
    }
    say(&pair.other, "a", "again").await;
    assert_eq!(heard(&mut slow).await.1, "again");
}

/// A subscription that is dropped leaves others, and its topic can be subscribed to again.
pub async fn a_dropped_subscription_leaves_others(pair: Pair) {
    let mut stays = pair.one.subscribe(&[topic("a"), topic("b")]).await.unwrap();
    for round in 0..20 {
        let mut goes = pair.one.subscribe(&[topic("a")]).await.unwrap();
        say(&pair.other, "a", round.to_string()).await;
        assert_eq!(heard(&mut goes).await.1, round.to_string());
        assert_eq!(heard(&mut stays).await.1, round.to_string());
        drop(goes);
    }
    say(&pair.other, "b", "still").await;
    assert_eq!(heard(&mut stays).await, (topic("b"), "still".to_owned()));
}

/// A message beyond the bounds is refused, and nobody hears of it.
pub async fn a_message_that_is_too_large_is_refused(pair: Pair) {
    let mut here = pair.one.subscribe(&[topic("a")]).await.unwrap();
    let large = vec![7; bounds::VALUE_BYTES_MAX + 1];
    let answer = pair.one.publish(&topic("a"), large.into()).await;
    assert!(matches!(answer, Err(Error::TooLarge { .. })));
    assert!(is_silent(&mut here).await);
}
