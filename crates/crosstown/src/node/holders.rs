//! The connections of all nodes, for the HTTP API.

use crate::node::peers::Peers;
use async_trait::async_trait;
use protocol::{Code, Problem};
use realtime::Realtime;
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use traffic_cop::{
    channels::{Followed, Followers, Page, Wanted},
    connections::{Answered, Holders, Question},
    totals::{Count, Counted},
};

/// This node's connections, and those of its peers.
pub(super) struct AllNodes {
    pub(super) realtime: Arc<Realtime>,
    pub(super) peers: Option<Arc<Peers>>,
}

/// What those nodes told that did answer.
struct Told<A> {
    answers: Vec<A>,
    /// How many did not.
    silent: u64,
}

impl<A> Told<A> {
    /// What all told.
    ///
    /// # Errors
    /// `upstream_unreachable` if that is not all, with the member `nodes`: how many did.
    fn all(self) -> Result<Vec<A>, Problem> {
        match self.silent {
            0 => Ok(self.answers),
            silent => Err(missing(silent).member("nodes", self.answers.len())),
        }
    }
}

fn missing(silent: u64) -> Problem {
    let detail = format!("{silent} of the nodes do not answer for their connections");
    Problem::new(Code::UpstreamUnreachable, detail)
}

impl AllNodes {
    /// Asks every node the same: this one by `here`, the others at `path`.
    async fn everywhere<A: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
        here: impl Future<Output = Result<A, Problem>>,
    ) -> Result<Told<A>, Problem> {
        let others = async {
            match &self.peers {
                Some(peers) => peers.ask_all::<A>(path, question).await,
                None => Ok(Vec::new()),
            }
        };
        let (here, others) = tokio::join!(here, others);
        let mut told = Told { answers: vec![here?], silent: 0 };
        for answered in others? {
            match answered {
                Ok(answered) => told.answers.push(answered),
                Err(error) => {
                    tracing::warn!(error, "a node does not answer for its connections");
                    told.silent += 1;
                }
            }
        }
        Ok(told)
    }
}

#[async_trait]
impl Holders for AllNodes {
    async fn ask(&self, question: Question) -> Result<Answered, Problem> {
        let here = self.realtime.answer(question.clone());
        let Told { answers, silent } = self.everywhere("/connections", &question, here).await?;
        let mut all = Answered::default();
        for answered in answers {
            all.add(answered, question.limit);
        }
        match silent {
            0 => Ok(all),
            silent => Err(missing(silent).member("connections", all.count)),
        }
    }

    async fn channels(&self, wanted: Wanted) -> Result<Page, Problem> {
        let here = async { Ok(self.realtime.channels(&wanted).await) };
        let told = self.everywhere("/channels", &wanted, here).await?;
        Ok(Page::join(told.all()?, wanted.limit))
    }

    async fn followers(&self, of: Followed) -> Result<Vec<Followers>, Problem> {
        let here = self.realtime.followers(&of);
        self.everywhere("/followers", &of, here).await?.all()
    }

    async fn count(&self, of: Count) -> Result<Vec<Counted>, Problem> {
        let here = async { Ok(self.realtime.count(&of).await) };
        self.everywhere("/count", &of, here).await?.all()
    }
}
