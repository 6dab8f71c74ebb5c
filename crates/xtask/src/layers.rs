//! A crate depends only on lower layers; each manifest says which layer it is in. A vendor's
//! client is the dependency of its adapter alone.

use crate::command::output;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Clients of engines, and the one adapter that each belongs to.
const VENDORS: &[(&str, &str)] = &[
    ("fjall", "store-embedded"),
    ("redis", "store-redis"),
    ("tokio-postgres", "store-postgres"),
    ("tokio-postgres-rustls", "store-postgres"),
];

/// Checks every edge of the workspace.
///
/// # Errors
/// The edges that point outward or sideways, those to a vendor's client that is another
/// adapter's, and the manifests that name no layer.
pub(crate) fn check() -> Result<(), String> {
    let metadata =
        output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: Json = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("cargo names no packages")?;
    let wrong = wrong_edges(packages);
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn wrong_edges(packages: &[Json]) -> Vec<String> {
    let name = |package: &Json| package["name"].as_str().unwrap_or_default().to_owned();
    let layer = |package: &Json| package["metadata"]["layer"].as_u64();
    let layers: BTreeMap<String, Option<u64>> =
        packages.iter().map(|package| (name(package), layer(package))).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let from = name(package);
        let Some(own) = layers[&from] else {
            wrong.push(format!("{from} names no layer: add `[package.metadata] layer = N`"));
            continue;
        };
        let edges = package["dependencies"].as_array().cloned().unwrap_or_default();
        for edge in edges.iter().filter(|edge| edge["kind"] != "dev") {
            let to = name(edge);
            if let Some(Some(below)) = layers.get(&to)
                && *below >= own
            {
                wrong.push(format!("{from} (layer {own}) depends on {to} (layer {below})"));
            }
            let vendor = VENDORS.iter().find(|(client, _)| *client == to);
            if let Some((_, adapter)) = vendor.filter(|(_, adapter)| *adapter != from) {
                wrong.push(format!("{from} depends on {to}, which is for {adapter} alone"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sideways_and_outward_edges_are_found() {
        let package = |name: &str, layer: u64, to: &str, kind: Json| {
            let edges = json!([{ "name": to, "kind": kind }]);
            json!({ "name": name, "metadata": { "layer": layer }, "dependencies": edges })
        };
        let found = |packages: &[Json]| wrong_edges(packages).len();
        assert_eq!(
            found(&[package("a", 1, "b", Json::Null), package("b", 0, "serde", Json::Null)]),
            0
        );
        assert_eq!(
            found(&[package("a", 1, "b", Json::Null), package("b", 1, "serde", Json::Null)]),
            1
        );
        assert_eq!(
            found(&[package("a", 1, "b", json!("dev")), package("b", 2, "a", Json::Null)]),
            0
        );
        assert_eq!(found(&[package("a", 2, "fjall", Json::Null)]), 1);
        assert_eq!(found(&[package("store-embedded", 2, "fjall", Json::Null)]), 0);
        assert_eq!(found(&[json!({ "name": "a", "metadata": null, "dependencies": [] })]), 1);
    }
}
