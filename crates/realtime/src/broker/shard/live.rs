//! Publications that are in no store: those of the live tier, and those that are kept nowhere.

use super::{READ, Shard};
use crate::{channel::Channel, live::Live};
use protocol::client::Publication;
use store::Incarnation;

impl Shard {
    /// Hands on a publication that is in no store: of the live tier in this life of its channel,
    /// or kept nowhere.
    pub(super) async fn published(
        &mut self,
        channel: &Channel,
        epoch: Option<Incarnation>,
        publication: Publication,
    ) {
        let Some(followed) = self.channels.get_mut(channel) else { return };
        let is_next = epoch.is_none_or(|epoch| {
            epoch == followed.position.incarnation && publication.offset == followed.last + 1
        });
        if is_next {
            followed.last = publication.offset;
            self.hand_over(channel, publication, None).await;
        } else {
            self.catch_up(channel).await;
        }
    }

    /// Hands what the live tier has of a channel to the cores.
    pub(super) async fn catch_up_live(&mut self, channel: &Channel, live: &Live) {
        while let Some(followed) = self.channels.get(channel) {
            let incarnation = followed.position.incarnation;
            match live.read(channel, incarnation, followed.last + 1, READ) {
                Ok(some) if some.is_empty() => return,
                Ok(some) => {
                    for publication in some {
                        self.published(channel, Some(incarnation), publication).await;
                    }
                }
                Err(store::Error::Trimmed { first }) if followed.is_value => {
                    self.skip(channel, None, first - 1);
                }
                Err(_) => return self.lost(channel, followed.position).await,
            }
        }
    }
}
