//! The realms of a configuration, with the documents that there are.

mod by_http;
mod library;
mod stored;

pub(super) use by_http::ByHttp;
pub(super) use library::Library;

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
    let mut documents = come.clone();
    let members = config.realms.values().flat_map(|realm| &realm.services);
    for (service, member) in members {
        let Some(Source::File(path)) = &member.openapi else { continue };
        let refused =
            |why: String| format!("the OpenAPI document of `{service}`, {}: {why}", path.display());
        let text = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        let document = Document::parse(&text).map_err(refused)?;
        documents.insert(service.clone(), Arc::new(document));
    }
    let realms = Realms::compile(&config.realms, &config.bridges, &documents);
    let realms = Arc::new(realms.map_err(|error| error.to_string())?);
    let limits = with_limits(&config.limits, &realms)?;
    config.edge.realms = realms;
    Ok(limits)
}

/// The configured limits, and those that documents ask for.
fn with_limits(configured: &[Rule], realms: &Realms) -> Result<Vec<Rule>, String> {
    let mut limits = configured.to_vec();
    for limit in realms.limits() {
        if limits.iter().any(|known| known.name == limit.name) {
            return Err(format!("two limits are named `{}`; rename one", limit.name));
        }
        limits.push(limit);
    }
    Ok(limits)
}
