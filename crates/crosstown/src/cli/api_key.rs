//! `crosstown api-key`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
};
use clap::Subcommand;
use serde_json::{Value as Json, json};
use std::process::ExitCode;
use types::{PrincipalId, Role, TenantId};

#[derive(Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Make a key. It is printed this once.
    Create {
        #[command(flatten)]
        node: NodeArgs,
        /// The tenant.
        #[arg(long)]
        tenant: TenantId,
        /// Who will use it.
        #[arg(long, value_name = "NAME")]
        principal: PrincipalId,
        /// What they are: user, agent or service.
        #[arg(long, default_value = "service", value_parser = ["user", "agent", "service"])]
        kind: String,
        /// A role; may be given more than once.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
    },
    /// List the keys of a tenant.
    List {
        #[command(flatten)]
        node: NodeArgs,
        /// The tenant.
        #[arg(long)]
        tenant: TenantId,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete a key; from then on it is refused.
    Delete {
        #[command(flatten)]
        node: NodeArgs,
        /// The tenant.
        #[arg(long)]
        tenant: TenantId,
        /// The key's id, as `list` shows it.
        id: String,
    },
}

pub(crate) fn run(command: ApiKeyCommand) -> Result<ExitCode, String> {
    runtime()?.block_on(async {
        match command {
            ApiKeyCommand::Create { node, tenant, principal, kind, roles } => {
                let body = json!({
                    "tenant": tenant, "principal": principal, "kind": kind, "roles": roles,
                });
                let key: Json = node.client()?.post("/api-keys", &body).await.map_err(said)?;
                println!("{}", key["text"].as_str().unwrap_or_default());
            }
            ApiKeyCommand::List { node, tenant, json } => {
                let path = format!("/api-keys?tenant={tenant}");
                let answer: Json = node.client()?.get(&path).await.map_err(said)?;
                let keys = answer["api_keys"].as_array().cloned().unwrap_or_default();
                if json {
                    println!("{}", Json::Array(keys));
                } else if keys.is_empty() {
                    println!(
                        "The tenant has no API keys. Make one with `crosstown api-key create`."
                    );
                } else {
                    for key in keys {
                        let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
                        println!("{:<16} {:<8} {}", text("id"), text("kind"), text("principal"));
                    }
                }
            }
            ApiKeyCommand::Delete { node, tenant, id } => {
                node.client()?.delete(&format!("/api-keys/{tenant}/{id}")).await.map_err(said)?;
                println!("deleted");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
