//! The connections of all nodes, for the HTTP API.

use crate::node::peers::Peers;
use async_trait::async_trait;
use protocol::{Code, Problem};
use realtime::Realtime;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, sync::Arc};
use traffic_cop::{
    channels::{Followed, Followers, Page, Wanted},
    connections::{Answered, Holders, Question},
    totals::{Count, Counted},
    traces::{self, NewTrace, Trace},
};
use types::{Caller, TenantId};

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

impl AllNodes {
    /// Has every node end a trace; each tells whether it had it.
    async fn end_everywhere(
        &self,
        tenant: &TenantId,
        id: &str,
    ) -> Result<Told<Vec<Trace>>, Problem> {
        let end = traces::Question::End { tenant: tenant.clone(), id: id.to_owned() };
        self.everywhere("/traces", &end, self.realtime.trace(end.clone())).await
    }
}

/// Says to the other nodes that a trace of this one goes on, as long as it does.
async fn renew(realtime: Arc<Realtime>, peers: Arc<Peers>, trace: Trace) {
    let hold = traces::Question::Hold(Box::new(trace.clone()));
    let tell = traces::Question::Tell { tenant: trace.tenant.clone() };
    loop {
        tokio::time::sleep(traces::RENEWED_EVERY).await;
        match realtime.trace(tell.clone()).await {
            Ok(held) if held.iter().any(|held| held.id == trace.id) => {}
            Ok(_) | Err(_) => return,
        }
        for held in peers.ask_all::<Vec<Trace>>("/traces", &hold).await.unwrap_or_default() {
            if let Err(error) = held {
                tracing::warn!(error, trace = trace.id, "a node does not hear of a trace");
            }
        }
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

    async fn begin_trace(&self, by: &Caller, new: NewTrace) -> Result<Trace, Problem> {
        let trace = self.realtime.new_trace(by, &new)?;
        let hold = traces::Question::Hold(Box::new(trace.clone()));
        self.realtime.trace(hold.clone()).await?;
        let here = async { Ok(Vec::<Trace>::new()) };
        let begun = self.everywhere("/traces", &hold, here).await.and_then(Told::all);
        if let Err(problem) = begun {
            // What is not traced everywhere is not said to be.
            let _ = self.end_everywhere(&trace.tenant, &trace.id).await;
            return Err(problem);
        }
        if let Some(peers) = &self.peers {
            tokio::spawn(renew(self.realtime.clone(), peers.clone(), trace.clone()));
        }
        Ok(trace)
    }

    async fn end_trace(&self, tenant: &TenantId, id: &str) -> Result<bool, Problem> {
        let ended = self.end_everywhere(tenant, id).await?.all()?;
        Ok(ended.iter().any(|ended| !ended.is_empty()))
    }

    async fn traces(&self, tenant: &TenantId) -> Result<Vec<Trace>, Problem> {
        let tell = traces::Question::Tell { tenant: tenant.clone() };
        let here = self.realtime.trace(tell.clone());
        let told = self.everywhere("/traces", &tell, here).await?.all()?;
        let all: BTreeMap<String, Trace> =
            told.into_iter().flatten().map(|trace| (trace.id.clone(), trace)).collect();
        Ok(all.into_values().collect())
    }

    async fn count(&self, of: Count) -> Result<Vec<Counted>, Problem> {
        let here = async { Ok(self.realtime.count(&of).await) };
        self.everywhere("/count", &of, here).await?.all()
    }
}
