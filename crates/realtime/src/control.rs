//! Answers for the connections of this node.

use crate::{Realtime, channel::Channel, hub::ToCore};
use protocol::Problem;
use std::sync::Arc;
use tokio::sync::mpsc;
use traffic_cop::connections::{Answered, Order, Question, Selector};
use types::{ConnectionId, TenantId};

impl Realtime {
    /// Closes a connection that another one takes the place of.
    pub(crate) async fn make_room(&self, tenant: TenantId, connection: ConnectionId) {
        let of = Selector { connection: Some(connection.to_string()), ..Selector::default() };
        let order = Some(Order::Disconnect { reconnect: false, reason: None });
        let _ = self.answer(Question { tenant, of, order, limit: 0 }).await;
    }

    /// Answers for the connections of this node.
    ///
    /// # Errors
    /// Those of [`Question::check`]; `bad_request` for a channel that cannot be.
    pub async fn answer(&self, question: Question) -> Result<Answered, Problem> {
        question.check()?;
        if let Some(Order::Subscribe { channel } | Order::Unsubscribe { channel }) = &question.order
        {
            Channel::new(&question.tenant, channel)?;
        }
        let limit = question.limit;
        let question = Arc::new(question);
        let cores = self.cores.lock().clone();
        let (answers, mut answered) = mpsc::channel(cores.len().max(1));
        for core in &cores {
            let (question, answers) = (question.clone(), answers.clone());
            // The inboxes are bounded; one that is full makes this wait.
            let _ = core.send(ToCore::Asked { question, answers }).await;
        }
        drop(answers);
        let mut all = Answered::default();
        while let Some(one) = answered.recv().await {
            all.add(one, limit);
        }
        Ok(all)
    }
}
