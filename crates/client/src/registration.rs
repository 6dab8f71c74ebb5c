//! A service that registers itself as an instance.

use crate::{Client, Error};
use http::Method;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::{sync::watch, task::JoinHandle};

/// The pause after a heartbeat that did not arrive.
const PAUSE: Duration = Duration::from_secs(1);

/// What is said of an instance besides its URL.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceOptions {
    /// Its share, 1 to 1000.
    pub weight: u32,
    /// How long it is called without another heartbeat.
    #[serde(serialize_with = "millis")]
    pub ttl: Duration,
    /// Its version, for those who look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Words about it, for those who look.
    pub tags: Vec<String>,
}

impl Default for InstanceOptions {
    fn default() -> Self {
        Self { weight: 1, ttl: Duration::from_secs(15), version: None, tags: Vec::new() }
    }
}

fn millis<S: serde::Serializer>(ttl: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{}ms", ttl.as_millis()))
}

#[derive(Serialize)]
struct New<'a> {
    url: &'a str,
    #[serde(flatten)]
    options: &'a InstanceOptions,
}

#[derive(Deserialize)]
struct Told {
    id: String,
    renew_after_ms: u64,
}

/// A registration that is kept up by heartbeats in the background, and ends with
/// [`Self::end`]. Dropped, it ends as well, but nobody waits for that.
#[derive(Debug)]
pub struct Registration {
    id: String,
    end: watch::Sender<bool>,
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl Client {
    /// Registers an instance of `service` at `url` (`http://host:port`), and sends heartbeats for
    /// it, on the current runtime, for as long as the answer is held. A registration that was
    /// lost meanwhile is made again.
    ///
    /// # Errors
    /// [`Error`]; then nothing is registered, as far as is known.
    pub async fn register(
        &self,
        service: &str,
        url: &str,
        options: InstanceOptions,
    ) -> Result<Registration, Error> {
        let path = format!("/crosstown/v1/services/{service}/instances");
        let told: Told = self.post(&path, &New { url, options: &options }).await?;
        let (end, ended) = watch::channel(false);
        let id = told.id.clone();
        let url = url.to_owned();
        let keep = Keep { client: self.clone(), path, url, options, ended };
        let task = Some(tokio::spawn(keep.run(told)));
        Ok(Registration { id, end, task })
    }
}

impl Registration {
    /// Its id in the service.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Ends it: no new call comes through the node that was told once this returns, and through
    /// others of its stores as soon as they hear of it. Keep serving until then, and until the
    /// calls in flight have ended.
    ///
    /// # Errors
    /// [`Error`]; then it ends with its time to live.
    pub async fn end(mut self) -> Result<(), Error> {
        self.end.send_replace(true);
        match self.task.take() {
            Some(task) => task.await.map_err(|error| Error::Answer(error.to_string()))?,
            None => Ok(()),
        }
    }
}

struct Keep {
    client: Client,
    path: String,
    url: String,
    options: InstanceOptions,
    ended: watch::Receiver<bool>,
}

impl Keep {
    async fn run(mut self, mut told: Told) -> Result<(), Error> {
        let mut pause = Duration::from_millis(told.renew_after_ms);
        loop {
            tokio::select! {
                // The other half is gone: it was dropped.
                _ = self.ended.changed() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.renew(&told.id).await {
                Ok(now) => {
                    told = now;
                    Duration::from_millis(told.renew_after_ms)
                }
                Err(_) => PAUSE.min(Duration::from_millis(told.renew_after_ms)),
            };
        }
        self.client.delete(&format!("{}/{}", self.path, told.id)).await
    }

    async fn renew(&self, id: &str) -> Result<Told, Error> {
        let answer = self.client.call(Method::PUT, &format!("{}/{id}", self.path), None).await?;
        match crate::read(answer) {
            Err(error) if error.code() == Some("not_found") => {
                let new = New { url: &self.url, options: &self.options };
                self.client.post(&self.path, &new).await
            }
            renewed => renewed,
        }
    }
}
