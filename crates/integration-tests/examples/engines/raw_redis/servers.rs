//! One server, or the nodes of a cluster.

use crate::told;
use redis::{AsyncConnectionConfig, Value, aio::MultiplexedConnection};
use std::{ops::RangeInclusive, time::Duration};

/// A connection to each server, and which of them has a key.
pub(super) struct Servers {
    /// By port.
    connections: Vec<(u16, MultiplexedConnection)>,
    /// Slots and the port of whoever has them, if the servers are a cluster's.
    slots: Vec<(RangeInclusive<u16>, u16)>,
}

impl Servers {
    pub(super) async fn open<const N: usize>(
        url: &str,
        scripts: [&str; N],
    ) -> Result<Self, String> {
        let hosts = url.split_once("://").map_or("", |(_, rest)| rest);
        let hosts = hosts.split(['/', '?']).next().unwrap_or_default();
        // As ours.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(3)));
        let (mut connections, mut slots) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let client = redis::Client::open(format!("redis://{host}/")).map_err(told)?;
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.map_err(told)?;
            let mut load = redis::pipe();
            for script in scripts {
                load.cmd("SCRIPT").arg("LOAD").arg(script).ignore();
            }
            load.exec_async(&mut connection).await.map_err(told)?;
            if hosts.contains(',') {
                let mut ask = redis::cmd("CLUSTER");
                let answer = ask.arg("SLOTS").query_async(&mut connection).await;
                let ranges: Vec<Vec<Value>> = answer.map_err(told)?;
                slots = ranges.iter().filter_map(|range| slots_of(range)).collect();
            }
            let port = host.rsplit(':').next().unwrap_or_default().parse().map_err(told)?;
            connections.push((port, connection));
        }
        Ok(Self { connections, slots })
    }

    /// The connection to the server that has `key`.
    pub(super) async fn of(&self, key: &str) -> Result<MultiplexedConnection, String> {
        let (_, first) = self.connections.first().ok_or("no server is named")?;
        if self.slots.is_empty() {
            return Ok(first.clone());
        }
        let mut ask = redis::cmd("CLUSTER");
        let answer = ask.arg("KEYSLOT").arg(key).query_async(&mut first.clone()).await;
        let slot: u16 = answer.map_err(told)?;
        let port = self.slots.iter().find(|(range, _)| range.contains(&slot)).map(|(_, at)| at);
        let found = self.connections.iter().find(|(at, _)| Some(at) == port);
        found.map(|(_, connection)| connection.clone()).ok_or_else(|| "no slot".to_owned())
    }
}

/// First and last slot, and the master: host and port.
fn slots_of(range: &[Value]) -> Option<(RangeInclusive<u16>, u16)> {
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range else {
        return None;
    };
    let Some(Value::Int(port)) = master.get(1) else { return None };
    let number = |number: i64| u16::try_from(number).ok();
    Some((number(*first)?..=number(*last)?, number(*port)?))
}
