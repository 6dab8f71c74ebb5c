//! The schema, by numbered migrations.

use crate::{
    OpenError, Options,
    connection::Connection,
    pool::Param,
    server,
    sql::{Sql, fill},
};
use tokio_postgres::types::Type;

/// In their order; a migration that was released is never changed.
const ALL: &[&str] = &[include_str!("../sql/migrations/0001_partitions.sql")];

/// Brings the schema up to date, each node in its turn.
pub(crate) async fn apply(
    connection: &Connection,
    sql: &Sql,
    options: &Options,
) -> Result<(), OpenError> {
    let known = i32::try_from(ALL.len()).unwrap_or(i32::MAX);
    match migrate(connection, sql, &options.schema, known).await {
        Ok(found) if found > known => {
            Err(OpenError::Newer { engine: options.engine(), found, known })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(OpenError::Server { engine: options.engine(), source: error.into() }),
    }
}

/// The migration that was found.
async fn migrate(
    connection: &Connection,
    sql: &Sql,
    schema: &str,
    known: i32,
) -> Result<i32, tokio_postgres::Error> {
    let client = &connection.client;
    client.batch_execute(&server::begin(schema)).await?;
    // Asked first, since even IF NOT EXISTS takes the right to make schemas.
    let param: Param<'_> = (&schema, Type::TEXT);
    let there = client.query_typed_one(&sql.schema, &[param]).await?;
    if !there.try_get::<_, bool>("has_schema")? {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
    }
    if !there.try_get::<_, bool>("has_migrations")? {
        client.batch_execute(&sql.migrations_table).await?;
    }
    let table = format!("{schema}.migrations");
    let latest = format!("SELECT coalesce(max(number), 0) FROM {table}");
    let found: i32 = client.query_typed_one(&latest, &[]).await?.try_get(0)?;
    for (text, number) in ALL.iter().zip(1..).skip(usize::try_from(found).unwrap_or(0)) {
        client.batch_execute(&fill(text, schema)).await?;
        let applied = format!("INSERT INTO {table} (number) VALUES ({number})");
        client.batch_execute(&applied).await?;
        tracing::info!(number, schema, "migrated");
    }
    client.batch_execute(if found > known { "ROLLBACK" } else { "COMMIT" }).await?;
    Ok(found)
}
