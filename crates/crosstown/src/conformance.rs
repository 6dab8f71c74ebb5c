//! `crosstown conformance`: parts of Crosstown against published test vectors.

use clap::Subcommand;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    process::ExitCode,
};
use traffic_cop::identity::jws::{KeyError, VerifyingKey};

#[derive(Subcommand)]
pub(crate) enum Suite {
    /// JSON Web Signatures, in the form of Project Wycheproof.
    Jws {
        /// The vectors.
        file: PathBuf,
    },
}

#[derive(Deserialize)]
struct Vectors {
    #[serde(rename = "testGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    public: Option<serde_json::Value>,
    private: Option<serde_json::Value>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(rename = "tcId")]
    id: u32,
    comment: String,
    jws: serde_json::Value,
    result: String,
}

pub(crate) fn run(suite: &Suite) -> Result<ExitCode, String> {
    let Suite::Jws { file } = suite;
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let vectors: Vectors = serde_json::from_str(&text)
        .map_err(|error| format!("{} holds no vectors: {error}", file.display()))?;
    let (mut agreed, mut disagreed, mut contradictory) = (0, 0, 0);
    let mut unsupported: BTreeMap<String, u32> = BTreeMap::new();
    for group in vectors.groups {
        let jwk = group.public.or(group.private).unwrap_or_default();
        let named = jwk["alg"].as_str().unwrap_or("no algorithm").to_owned();
        let key = match serde_json::from_value(jwk) {
            Ok(jwk) => VerifyingKey::from_jwk(&jwk),
            Err(_) => Err(KeyError::Malformed),
        };
        let valid: HashSet<String> = group
            .tests
            .iter()
            .filter(|vector| vector.result == "valid")
            .filter_map(|vector| vector.jws.as_str().map(str::to_owned))
            .collect();
        for vector in group.tests {
            let accepted = match &key {
                Ok(key) => vector.jws.as_str().is_some_and(|token| key.verify(token).is_ok()),
                // A key that we cannot use accepts nothing; a valid vector then counts as
                // unsupported, an invalid one as refused.
                Err(_) => false,
            };
            match (accepted, vector.result.as_str(), &key) {
                (true, "valid", _) | (false, "invalid", _) => agreed += 1,
                (false, "valid", Err(KeyError::Unsupported)) => {
                    *unsupported.entry(named.clone()).or_default() += 1;
                }
                _ if contradicts(&vector, &valid) => {
                    contradictory += 1;
                    println!(
                        "{}: {} ({}) cannot be agreed with: {}",
                        vector.id, vector.comment, vector.result, vector.jws
                    );
                }
                _ => {
                    disagreed += 1;
                    let verdict = if accepted { "accepted" } else { "refused" };
                    println!("{}: {} ({}) was {verdict}", vector.id, vector.comment, vector.result);
                }
            }
        }
    }
    for (algorithm, count) in &unsupported {
        println!("{algorithm}: {count} valid vectors of an algorithm that is not supported");
    }
    println!(
        "{agreed} agreed, {disagreed} disagreed, {contradictory} contradict themselves or the standard"
    );
    Ok(if disagreed == 0 && agreed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether no verifier can agree with a vector: it asks to accept a character outside the
/// alphabet of base64url (RFC 7515, section 2), or to refuse a token that another vector of
/// the same key calls valid. Such vectors are listed, and no verifier is bent to them.
fn contradicts(vector: &Vector, valid: &HashSet<String>) -> bool {
    let Some(token) = vector.jws.as_str() else { return false };
    let alphabet = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match vector.result.as_str() {
        "valid" => !token.chars().all(alphabet),
        _ => valid.contains(token),
    }
}
