//! The servers start, answer, keep what they are to keep, and end.

use test_servers::{Appends, Redis, RedisCluster, RedisOptions};

#[test]
fn a_server_keeps_what_it_was_told() {
    let always = || RedisOptions::appending(Appends::Always);
    for mut server in [Redis::start(always()).unwrap(), Redis::start_valkey(always()).unwrap()] {
        assert_eq!(server.ask(&["SET", "a", "1"]).unwrap(), "OK");
        server.kill().unwrap();
        assert!(server.ask(&["GET", "a"]).is_err());
        server.start_again().unwrap();
        assert_eq!(server.ask(&["GET", "a"]).unwrap(), "1");
    }
}

#[test]
fn three_nodes_agree() {
    let cluster = RedisCluster::start(RedisOptions::default()).unwrap();
    for node in cluster.nodes() {
        let said = node.ask(&["CLUSTER", "INFO"]).unwrap();
        assert!(said.contains("cluster_slots_ok:16384"), "{said}");
    }
}
