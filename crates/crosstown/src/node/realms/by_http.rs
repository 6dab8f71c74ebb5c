//! Realms, to whoever asks by HTTP.

use crate::node::realms::Library;
use api::realms::{BrokenView, Door, Published, RealmsView};
use async_trait::async_trait;
use bridge::{Document, Realms};
use protocol::Problem;
use soa::Condition;
use std::{collections::BTreeMap, sync::Arc};
use types::Caller;

/// The realms of a node, which may not run yet.
pub(in crate::node) struct ByHttp(pub(in crate::node) Arc<Library>);

fn told(document: &Document) -> Published {
    Published {
        title: document.title().to_owned(),
        version: document.version().to_owned(),
        operations: document.operations().len(),
    }
}

#[async_trait]
impl RealmsView for ByHttp {
    fn realms(&self) -> Arc<Realms> {
        self.0.node().map(|node| node.gateway().realms()).unwrap_or_default()
    }

    fn doors(&self) -> Vec<Door> {
        let doors = self.0.node().map(|node| node.gateway().doors()).unwrap_or_default();
        doors.into_iter().map(|(service, prefix)| Door { service, prefix }).collect()
    }

    fn instances(&self) -> BTreeMap<String, (usize, usize)> {
        let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        if let Ok(node) = self.0.node() {
            node.gateway().instances(|service, instance, _, _, elapsed| {
                let (fit, all) = found.entry(service.to_owned()).or_default();
                *fit += usize::from(instance.condition(elapsed) == Condition::Fit);
                *all += 1;
            });
        }
        found
    }

    fn broken(&self) -> Vec<BrokenView> {
        let broken = self.0.node().map(|node| node.gateway().broken()).unwrap_or_default();
        broken
            .into_iter()
            .map(|broken| BrokenView {
                service: broken.service,
                operation: broken.operation,
                by: match broken.side {
                    gateway::BrokenSide::Request => "request",
                    gateway::BrokenSide::Response => "response",
                },
                count: broken.count,
                last: broken.last,
                at: broken.at,
            })
            .collect()
    }

    async fn publish(
        &self,
        by: &Caller,
        realm: &str,
        service: &str,
        text: &[u8],
    ) -> Result<Published, Problem> {
        self.0.publish(by, realm, service, text).await.map(|document| told(&document))
    }

    async fn withdraw(&self, by: &Caller, realm: &str, service: &str) -> Result<(), Problem> {
        self.0.withdraw(by, realm, service).await
    }
}
