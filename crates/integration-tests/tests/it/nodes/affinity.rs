//! What sessions are bound to, on two nodes.

use super::Stores;
use crate::affinity::{Bound, Instances, rooms};
use client::Client;
use integration_tests::Server;
use std::time::Duration;

pub(super) async fn what_a_session_is_bound_to_leads_both_nodes(stores: Stores) {
    let instances = Instances::start();
    let [here, there] = [(); 2].map(|()| Server::start_on(&stores.keys, &instances.config()));
    let key = here.api_key("acme", "crm").await;
    let service = Client::new(&here.base(), &key).unwrap();
    let rooms = rooms(&here, &service).await;
    let session = Bound::new(&service, "ann", &[&rooms[0].0]).await;
    for (room, instance) in &rooms {
        session.bind(&service, &[room]).await;
        assert_eq!(session.comes_to(&here).await, *instance, "{room}");
        // The other node has known it by what it was before.
        let follows = async {
            while session.comes_to(&there).await != *instance {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), follows).await.expect(room);
    }
}
