//! `crosstown token`.

use crate::{cli::ConfigArgs, config};
use clap::Args;
use serde_json::json;
use std::{process::ExitCode, time::Duration};
use traffic_cop::identity::jws;
use types::{PrincipalId, Role, TenantId};

#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Which configured issuer; the only one, if there is only one.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The tenant, unless the issuer's configuration fixes it.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// The user, agent or service.
    #[arg(long, value_name = "NAME")]
    user: PrincipalId,
    /// What it is: user, agent or service.
    #[arg(long, default_value = "user", value_parser = ["user", "agent", "service"])]
    kind: String,
    /// A role; may be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<Role>,
    /// Makes so many, for the users NAME-1 on.
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// How long it holds, for instance 15m or 8h.
    #[arg(long, default_value = "1h", value_parser = types::duration::parse)]
    ttl: Duration,
}

pub(crate) fn run(args: &TokenArgs) -> Result<ExitCode, String> {
    let config = args.config.load()?;
    let issuers = &config.identity.issuers;
    let issuer = match &args.issuer {
        Some(name) => issuers
            .iter()
            .find(|issuer| issuer.name == *name)
            .ok_or_else(|| format!("there is no issuer `{name}` in the configuration"))?,
        None => match issuers.as_slice() {
            [only] => only,
            [] => {
                return Err(
                    "no issuer is configured; add an `[[identity.issuers]]` with a `secret_file`"
                        .into(),
                );
            }
            _ => {
                return Err("several issuers are configured; say which with `--issuer NAME`".into());
            }
        },
    };
    let secret = config::shared_secret(issuer)?;
    if issuer.tenant.is_none() && args.tenant.is_none() {
        return Err("say which tenant with `--tenant NAME`".into());
    }
    let now = clock::SystemClock::shared().now().as_secs();
    let mut claims = json!({
        "kind": args.kind,
        "iat": now,
        "exp": now + args.ttl.as_secs(),
    });
    if let Some(name) = &issuer.issuer {
        claims["iss"] = json!(name);
    }
    if let Some(audience) = issuer.audience.first() {
        claims["aud"] = json!(audience);
    }
    if let Some(tenant) = &args.tenant {
        claims[&issuer.tenant_claim] = json!(tenant);
    }
    if !args.roles.is_empty() {
        claims[&issuer.roles_claim] = json!(args.roles);
    }
    let users = match args.count {
        None => vec![args.user.to_string()],
        Some(count) => (1..=count).map(|n| format!("{}-{n}", args.user)).collect(),
    };
    for user in users {
        claims["sub"] = json!(user);
        println!("{}", jws::sign(&secret, &claims).map_err(|error| error.to_string())?);
    }
    Ok(ExitCode::SUCCESS)
}
