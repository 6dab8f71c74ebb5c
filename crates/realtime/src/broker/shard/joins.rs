//! Those who come and go in a channel, as a shard hands them to the cores.
//!
//! Nobody was promised these: what was trimmed before it was read is skipped.

use super::{Feed, READ, Shard};
use crate::{
    broker::problem,
    channel::Channel,
    frame::Frames,
    hub::ToCore,
    presence::{self, JOINS, Joined},
};
use protocol::{
    Problem,
    client::{Push, Who},
};
use store::{Head, Partition, Position};
use types::ConnectionId;

/// Where the shard is in the stream of those who come and go.
pub(super) struct Joins {
    pub(super) partition: Partition,
    position: Position,
    last: u64,
}

/// The push that tells of it.
pub(crate) fn push(channel: &Channel, joined: &Joined) -> Push {
    let who = |info: &protocol::client::ClientInfo| Some(Who { info: info.clone() });
    let push = Push { channel: channel.name().to_owned(), ..Push::default() };
    match joined {
        Joined::Join(info) => Push { join: who(info), ..push },
        Joined::Leave(info) => Push { leave: who(info), ..push },
    }
}

impl Joins {
    fn at(partition: Partition, head: Option<&Head>) -> Self {
        let last = head.map_or(0, |head| head.last(&JOINS));
        let position = head.map_or(Position::ZERO, |head| head.position);
        Self { partition, position, last }
    }
}

impl Shard {
    /// Follows those who come to and go from a channel that is followed, from now on.
    pub(super) async fn follow_joins(&mut self, channel: &Channel) -> Result<(), Problem> {
        if self.channels.get(channel).is_none_or(|followed| followed.joins.is_some()) {
            return Ok(());
        }
        let partition = presence::partition(channel)?;
        self.feed(&partition, channel, Feed::Joins);
        let head = self.store.head(&partition).await.map_err(|error| {
            self.starve(&partition, channel);
            problem(error)
        })?;
        if let Some(followed) = self.channels.get_mut(channel) {
            followed.joins = Some(Joins::at(partition, head.as_ref()));
        }
        Ok(())
    }

    /// Hands on who came and went since the last time.
    pub(super) async fn catch_up_joins(&mut self, channel: &Channel) {
        loop {
            let followed = self.channels.get_mut(channel);
            let Some(joins) = followed.and_then(|followed| followed.joins.as_mut()) else {
                return;
            };
            let read = match self.store.head(&joins.partition).await {
                Ok(None) => return,
                Ok(Some(head)) if head.position.incarnation != joins.position.incarnation => {
                    let is_first = joins.position == Position::ZERO;
                    *joins = Joins::at(joins.partition.clone(), Some(&head));
                    if is_first {
                        joins.last = 0;
                    }
                    continue;
                }
                Ok(_) => self.store.read(&joins.partition, &JOINS, joins.last + 1, READ).await,
                Err(error) => Err(error),
            };
            let entries = match read {
                Ok(entries) if entries.is_empty() => return,
                Ok(entries) => entries,
                Err(store::Error::Trimmed { first }) => {
                    joins.last = first - 1;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(?channel, %error, "those who come and go wait for the store");
                    let partition = joins.partition.clone();
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    return self.watcher.follow(partition, Position::ZERO);
                }
            };
            joins.last = entries.last().map_or(joins.last, |entry| entry.sequence);
            for entry in &entries {
                match presence::joined(&entry.value) {
                    Ok(joined) => self.hand_over_joined(channel, &joined).await,
                    Err(problem) => tracing::warn!(?channel, problem.detail, "it is not told"),
                }
            }
        }
    }

    async fn hand_over_joined(&self, channel: &Channel, joined: &Joined) {
        let Some(followed) = self.channels.get(channel) else { return };
        let is_wanted = |dialect| followed.speak(dialect);
        let frames = Frames::of(push(channel, joined), self.number(followed), is_wanted);
        let (Joined::Join(info) | Joined::Leave(info)) = joined;
        let client = ConnectionId::parse(&info.client);
        let tell = || {
            let (channel, frames) = (channel.clone(), frames.clone());
            ToCore::Joined { channel, frames, client }
        };
        self.to_cores(&followed.subscribers, tell).await;
    }
}
