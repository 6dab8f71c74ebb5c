//! A fan-out behind its gauge.

use crate::{Condition, Config, Gauge, Report, gauge::Said};
use async_trait::async_trait;
use bytes::Bytes;
use clock::SharedClock;
use std::{fmt, sync::Arc, time::Duration};
use store::{Error, Fanout, Kind, SharedFanout, Subscription, Topic};
use tokio::sync::{Notify, Semaphore};
use types::TenantId;

const LOOK_EVERY: Duration = Duration::from_millis(250);
const QUIET_MAX: Duration = Duration::from_secs(1);
const KIND: Kind = Kind::new("probe");

/// A fan-out behind its gauge: while it is away, publications wait for it, for some time and
/// up to a number; then they are refused, with nothing sent. What was sent and had no answer
/// is never sent again: it may have arrived.
pub struct GuardedFanout {
    fanout: SharedFanout,
    clock: SharedClock,
    gauge: Gauge,
    wait: Duration,
    room: Semaphore,
    back: Notify,
}

impl fmt::Debug for GuardedFanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedFanout").field("gauge", &self.gauge).finish_non_exhaustive()
    }
}

impl GuardedFanout {
    /// Guards `fanout`; one within the process (`is_shared` false) is never away.
    #[must_use]
    pub fn new(
        fanout: SharedFanout,
        is_shared: bool,
        config: &Config,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self {
            fanout,
            clock,
            gauge: Gauge::new(config, is_shared),
            wait: config.publications_wait,
            room: Semaphore::new(config.publications_max),
            back: Notify::new(),
        })
    }

    /// How the fan-out is.
    #[must_use]
    pub fn report(&self) -> Report {
        self.gauge.report(self.clock.elapsed())
    }

    /// Asks a fan-out that is away, or that nobody else asks; logs when it turns. To be run
    /// once, until dropped.
    pub async fn run(self: Arc<Self>) {
        let Ok(topic) = Topic::new(TenantId::system(), KIND, "fanout") else { return };
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let now = self.clock.elapsed();
            let is_away = self.gauge.condition(now) == Condition::Away;
            if (is_away || self.gauge.is_quiet(now, QUIET_MAX))
                && let Ok(call) = self.gauge.begin(now, true)
            {
                let answer = self.fanout.publish(&topic, Bytes::new()).await;
                call.end(self.clock.elapsed(), Said::by(&answer, false));
            }
            match self.gauge.turned(self.clock.elapsed()) {
                Some((_, Condition::Away)) => {
                    tracing::error!("the fan-out is away: publications without history wait");
                }
                Some((Condition::Away, _)) => tracing::info!("the fan-out is back"),
                Some(_) | None => {}
            }
            if self.gauge.condition(self.clock.elapsed()) != Condition::Away {
                self.back.notify_waiters();
            }
        }
    }

    /// Waits until it is no longer away, or refuses.
    async fn until_back(&self) -> Result<(), Error> {
        let is_away = || self.gauge.condition(self.clock.elapsed()) == Condition::Away;
        if !is_away() {
            return Ok(());
        }
        let refused = |_| Error::unavailable("the fan-out is away, and nothing was sent");
        let _place = self.room.try_acquire().map_err(|full| refused(Box::new(full).to_string()))?;
        let back = async {
            loop {
                let back = self.back.notified();
                if !is_away() {
                    return;
                }
                back.await;
            }
        };
        tokio::time::timeout(self.wait, back).await.map_err(|late| refused(late.to_string()))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Fanout for GuardedFanout {
    async fn publish(&self, topic: &Topic, message: Bytes) -> Result<(), Error> {
        self.until_back().await?;
        let call = self.gauge.begin(self.clock.elapsed(), false)?;
        let answer = self.fanout.publish(topic, message).await;
        call.end(self.clock.elapsed(), Said::by(&answer, false));
        answer
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<Subscription, Error> {
        self.fanout.subscribe(topics).await
    }
}
