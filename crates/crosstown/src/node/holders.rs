//! The connections of all nodes, for the HTTP API.

use crate::node::peers::Peers;
use async_trait::async_trait;
use protocol::{Code, Problem};
use realtime::Realtime;
use std::sync::Arc;
use traffic_cop::connections::{Answered, Holders, Question};

/// This node's connections, and those of its peers.
pub(super) struct AllNodes {
    pub(super) realtime: Arc<Realtime>,
    pub(super) peers: Option<Arc<Peers>>,
}

#[async_trait]
impl Holders for AllNodes {
    async fn ask(&self, question: Question) -> Result<Answered, Problem> {
        let limit = question.limit;
        let others = async {
            match &self.peers {
                Some(peers) => peers.ask_all(&question).await,
                None => Ok(Vec::new()),
            }
        };
        let (here, others) = tokio::join!(self.realtime.answer(question.clone()), others);
        let mut all = here?;
        let mut silent = 0_u64;
        for answered in others? {
            match answered {
                Ok(answered) => all.add(answered, limit),
                Err(error) => {
                    tracing::warn!(error, "a node does not answer for its connections");
                    silent += 1;
                }
            }
        }
        if silent > 0 {
            let detail = format!("{silent} of the nodes do not answer for their connections");
            let problem = Problem::new(Code::UpstreamUnreachable, detail);
            return Err(problem.member("connections", all.count));
        }
        Ok(all)
    }
}
