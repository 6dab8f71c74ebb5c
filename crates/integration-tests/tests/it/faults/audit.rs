//! What was told to writers and what is there agree.

use super::{
    follower::{Seen, Track},
    ground::World,
    sessions::Sessions,
    writer::{Written, answered},
};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Compares everything, and answers what it came to.
pub(super) async fn all(
    world: &World,
    written: &[Written],
    seen: &[Seen],
    sessions: &[Sessions],
) -> String {
    let (mut acknowledged, mut unknown) = (0, 0);
    for (written, seen) in written.iter().zip(seen) {
        assert!(std::sync::Arc::ptr_eq(&written.user, &seen.user));
        document(world, written).await;
        let published = |_: u64, data: &Json| data.clone();
        told(
            world,
            &written.published,
            &written.maybe_published,
            &by_offset(&seen.news),
            published,
        );
        let value = |_: u64, data: &Json| data["value"].clone();
        told(world, &written.changed, &written.maybe_changed, &by_revision(&seen.state), value);
        acknowledged += written.published.len() + written.changed.len();
        unknown += written.maybe_published.len() + written.maybe_changed.len();
    }
    let (mut live, mut ended) = (0, 0);
    for sessions in sessions {
        let (more_live, more_ended) = sessions.audit().await;
        live += more_live;
        ended += more_ended;
    }
    let sum = |of: fn(&Seen) -> usize| seen.iter().map(of).sum::<usize>();
    format!(
        "{acknowledged} writes acknowledged, {unknown} without an answer, {} seen by followers \
         over {} connections with {} recoveries; {live} sessions live, {ended} ended",
        sum(|seen| seen.news.items.len() + seen.state.items.len()),
        sum(|seen| seen.connections),
        sum(|seen| seen.recovered),
    )
}

/// Both nodes hold what was acknowledged last, or something later that had no answer.
async fn document(world: &World, written: &Written) {
    let user = &written.user;
    let mut snapshots = Vec::new();
    for client in &user.by_token {
        let document = client.document("user", user.name);
        let snapshot = answered(document.snapshot()).await.unwrap();
        let entries: BTreeMap<String, Json> =
            snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        snapshots.push(entries);
    }
    if snapshots[0] != snapshots[1] {
        world.wrong(format!("{} of {}: the nodes differ: {snapshots:?}", user.name, user.tenant));
    }
    for (key, held) in &written.entries {
        let found = snapshots[0].get(key);
        if found != held.value.as_ref() && !found.is_some_and(|found| held.maybe.contains(found)) {
            let last = &held.value;
            world.wrong(format!("{key} of {}: {last:?} is lost for {found:?}", user.name));
        }
    }
}

fn by_offset(track: &Track) -> BTreeMap<u64, Json> {
    (1..).zip(track.items.iter().cloned()).collect()
}

fn by_revision(track: &Track) -> BTreeMap<u64, Json> {
    let number = |data: &Json| data["revision"].as_u64().expect("a revision");
    track.items.iter().map(|data| (number(data), data.clone())).collect()
}

/// Each acknowledged write was seen where it was told to be, and nothing that nobody asked
/// for; what had no answer at most once.
fn told(
    world: &World,
    told: &BTreeMap<u64, Json>,
    maybe: &[Json],
    seen: &BTreeMap<u64, Json>,
    value: impl Fn(u64, &Json) -> Json,
) {
    for (number, wanted) in told {
        let found = seen.get(number).map(|data| value(*number, data));
        if found.as_ref() != Some(wanted) {
            world.wrong(format!("acknowledged {wanted} at {number}, and there is {found:?}"));
        }
    }
    let mut maybe: Vec<&Json> = maybe.iter().collect();
    for (number, data) in seen.iter().filter(|(number, _)| !told.contains_key(number)) {
        let found = value(*number, data);
        match maybe.iter().position(|maybe| **maybe == found) {
            Some(at) => drop(maybe.swap_remove(at)),
            None => world.wrong(format!("nobody wrote {found} at {number}, or it came twice")),
        }
    }
}
