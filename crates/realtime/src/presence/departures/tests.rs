use super::*;
use crate::{
    channel::Channel,
    presence::{Announce, Joined, Move, Way},
};
use clock::{ManualClock, SharedClock};
use ledger::{NodeId, Relay, Shard, acquire};
use protocol::client::ClientInfo;
use std::sync::Arc;
use store::Commit;
use types::{TenantId, Timestamp};

const TTL: Duration = Duration::from_secs(60);

struct World {
    clock: Arc<ManualClock>,
    store: SharedStore,
    channel: Channel,
    presence: bool,
}

impl World {
    fn new(presence: bool) -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000), 7);
        let store: SharedStore = Arc::new(store_memory::MemoryStore::new(clock.clone()));
        let channel = Channel::new(&TenantId::new("acme").unwrap(), "lobby").unwrap();
        Self { clock, store, channel, presence }
    }

    fn partition(&self) -> Partition {
        records::partition(&self.channel).unwrap()
    }

    async fn moves(&self, client: &str, way: Way, is_listed: bool) {
        let announce = Announce { presence: self.presence, join_leave: true };
        let info =
            ClientInfo { user: "ann".into(), client: client.into(), ..ClientInfo::default() };
        let moved = Move { channel: self.channel.clone(), announce, info, way };
        let mut commit = Commit::new(self.partition());
        commit.writes = records::writes(&moved, TTL, is_listed);
        commit.writes.push(Write::Wake(Some(Duration::ZERO)));
        self.store.commit(commit).await.unwrap();
    }

    async fn renew(&self, client: &str) {
        let announce = Announce { presence: self.presence, join_leave: true };
        let put = records::put(records::place(announce, client), "x".into(), TTL);
        self.store.commit(Commit::new(self.partition()).write(put)).await.unwrap();
    }

    /// What the owner of the shard does, if the partition is due.
    async fn look(&self) -> bool {
        let partition = self.partition();
        if self.store.due(partition.bucket(), 10).await.unwrap().is_empty() {
            return false;
        }
        let clock: SharedClock = self.clock.clone();
        let (shard, node) = (Shard::of(&partition), NodeId::draw(&clock));
        let lease = acquire(&self.store, &clock, shard, &node).await.unwrap();
        let work = Departures::new(self.store.clone(), TTL);
        let relay = Relay::new(self.store.clone());
        relay.serve(&lease, &partition, Some(&work)).await.unwrap();
        lease.release(&self.store).await.unwrap();
        true
    }

    async fn left(&self) -> Vec<String> {
        let head = self.store.head(&self.partition()).await.unwrap().unwrap();
        let first = head.streams.iter().find(|held| held.stream == JOINS).unwrap().first;
        let read = self.store.read(&self.partition(), &JOINS, first, 1_000).await.unwrap();
        let left = |entry: &store::Entry| match records::joined(&entry.value).unwrap() {
            Joined::Leave(info) => Some(info.client),
            Joined::Join(_) => None,
        };
        read.iter().filter_map(left).collect()
    }
}

#[tokio::test]
async fn whoever_is_renewed_no_more_leaves_once() {
    for presence in [true, false] {
        let world = World::new(presence);
        for client in ["a", "b", "c"] {
            world.moves(client, Way::In, false).await;
        }
        assert!(world.look().await && !world.look().await);
        world.moves("c", Way::Out, true).await;
        world.clock.advance(TTL / 2);
        world.renew("b").await;
        assert!(world.look().await);
        assert_eq!(world.left().await, ["c"]);
        world.clock.advance(TTL / 2);
        assert!(world.look().await);
        assert_eq!(world.left().await, ["c", "a"]);
        for _ in 0..3 {
            world.renew("b").await;
            world.clock.advance(TTL / 2);
            assert!(world.look().await, "somebody is there");
        }
        world.moves("b", Way::Out, true).await;
        assert_eq!(world.left().await, ["c", "a", "b"]);
        while world.look().await {}
        world.clock.advance(TTL * 10);
        assert!(!world.look().await, "nobody is left to look for");
        assert_eq!(world.left().await, ["c", "a", "b"]);
    }
}

#[tokio::test]
async fn many_leave_by_several_commits() {
    let world = World::new(true);
    let clients: Vec<String> = (0..150).map(|n| format!("c{n:03}")).collect();
    for client in &clients {
        world.moves(client, Way::In, false).await;
    }
    world.clock.advance(TTL);
    while world.look().await {}
    let mut left = world.left().await;
    left.sort();
    assert_eq!(left, clients);
}

#[tokio::test]
async fn whoever_comes_back_or_leaves_meanwhile_is_not_told_of() {
    let world = World::new(true);
    let work = Departures::new(world.store.clone(), TTL);
    let clock: SharedClock = world.clock.clone();
    let (shard, node) = (Shard::of(&world.partition()), NodeId::draw(&clock));
    for way in [Way::In, Way::Out] {
        world.moves("a", Way::In, false).await;
        world.clock.advance(TTL);
        let (gone, is_anybody) = work.gone(&world.partition()).await.unwrap();
        assert_eq!((gone.len(), is_anybody), (1, false));
        match way {
            Way::In | Way::Anew => world.renew("a").await,
            Way::Out => world.moves("a", Way::Out, true).await,
        }
        let lease = acquire(&world.store, &clock, shard, &node).await.unwrap();
        let owned = lease.open(&world.store, &world.partition()).await.unwrap();
        let told = work.tell(&owned, &gone).await;
        let conflict = matches!(told, Err(LeaseError::Store(Error::Conflict { .. })));
        assert!(conflict, "{way:?}: {told:?}");
        lease.release(&world.store).await.unwrap();
    }
}
