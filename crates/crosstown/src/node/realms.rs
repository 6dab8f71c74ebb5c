//! The realms of a configuration, with the documents that there are.

use crate::config::Config;
use bridge::{Document, Documents, Realms, Source};
use std::sync::Arc;
use traffic_cop::limit::Rule;

/// Reads the documents that are files, adds those that came otherwise, and makes the realms a part
/// of the edge. Gives the limits, those that documents ask for among them.
///
/// # Errors
/// One line that says what to change.
pub(super) fn prepare(config: &mut Config, come: &Documents) -> Result<Vec<Rule>, String> {
    let mut documents = Documents::new();
    let members = config.realms.values().flat_map(|realm| &realm.services);
    for (service, member) in members {
        let document = match &member.openapi {
            Some(Source::File(path)) => {
                let refused = |why: String| {
                    format!("the OpenAPI document of `{service}`, {}: {why}", path.display())
                };
                let text = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
                Some(Arc::new(Document::parse(&text).map_err(refused)?))
            }
            Some(Source::Url(_) | Source::Registered(_)) => come.get(service).cloned(),
            None => None,
        };
        documents.extend(document.map(|document| (service.clone(), document)));
    }
    let realms = Realms::compile(&config.realms, &config.bridges, &documents);
    let realms = Arc::new(realms.map_err(|error| error.to_string())?);
    let mut limits = config.limits.clone();
    for limit in realms.limits() {
        if limits.iter().any(|known| known.name == limit.name) {
            return Err(format!("two limits are named `{}`; rename one", limit.name));
        }
        limits.push(limit);
    }
    config.edge.realms = realms;
    Ok(limits)
}
