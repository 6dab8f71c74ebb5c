//! Tables that say of which tenants a user is a member.

use crate::{config::Config, node::stores::chain};
use async_trait::async_trait;
use std::{collections::HashMap, sync::Arc};
use store_postgres::{MembersReader, MembersTable};
use traffic_cop::identity::{
    issuer,
    membership::{self, Members, Membership, PER_USER_MAX},
};

struct Table(MembersReader);

#[async_trait]
impl Members for Table {
    async fn of(&self, user: &str) -> Result<Vec<Membership>, store::Error> {
        let found = self.0.of(user).await?;
        Ok(found.into_iter().map(|(tenant, role)| Membership { tenant, role }).collect())
    }
}

/// The tables of the issuers that name one, by the issuers' names.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(super) async fn open(config: &Config) -> Result<HashMap<String, Arc<dyn Members>>, String> {
    let mut tables = HashMap::new();
    for issuer in &config.identity.issuers {
        if let Some(membership) = &issuer.membership {
            tables.insert(issuer.name.clone(), table(config, issuer, membership).await?);
        }
    }
    Ok(tables)
}

async fn table(
    config: &Config,
    issuer: &issuer::Config,
    membership: &membership::Config,
) -> Result<Arc<dyn Members>, String> {
    let named = |why: String| format!("the members of issuer `{}`: {why}", issuer.name);
    let options = match &membership.database {
        Some(url) => {
            store_postgres::Options::parse(url).map_err(|error| named(error.to_string()))?
        }
        None => config.stores.postgres()?.ok_or_else(|| {
            named("no store is PostgreSQL; give `membership.database`".to_owned())
        })?,
    };
    let table = MembersTable {
        table: membership.table.clone(),
        user: membership.user_column.clone(),
        of: membership.tenant_column.clone(),
        role: membership.role_column.clone(),
    };
    let opened = MembersReader::open(&options, &table, PER_USER_MAX + 1).await;
    Ok(Arc::new(Table(opened.map_err(|error| named(chain(&error)))?)))
}
