//! A table that says who is a member of what, read and never written.
//!
//! It is the user's own: Crosstown knows its name and its columns, and needs no more than the
//! right to select them.

use crate::{
    OpenError, Options,
    connection::Connector,
    pool::{Param, Pool},
    rows,
};
use std::sync::Arc;
use store::{BoxError, Error};
use tokio_postgres::{Row, error::SqlState, types::Type};

/// Names of a table and its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersTable {
    /// `schema.name`, or a name that the role's search path finds.
    pub table: String,
    /// The member.
    pub user: String,
    /// What he is a member of.
    pub of: String,
    /// In which role.
    pub role: Option<String>,
}

/// Reads a table of members.
pub struct MembersReader {
    pool: Pool,
    sql: String,
}

impl MembersReader {
    /// Connects, and looks whether the table and its columns are there. At most `limit` rows
    /// of one user are read.
    ///
    /// # Errors
    /// [`OpenError`]: the server cannot be reached, or something of the table is not there.
    pub async fn open(
        options: &Options,
        table: &MembersTable,
        limit: usize,
    ) -> Result<Self, OpenError> {
        let engine = options.engine();
        let wrong = |source: BoxError| OpenError::Server { engine: engine.clone(), source };
        let (name, user, of) = (quoted(&table.table)?, quoted(&table.user)?, quoted(&table.of)?);
        let role = table.role.as_deref().map(quoted).transpose()?;
        let role = role.as_deref().unwrap_or("NULL");
        let connector = Arc::new(Connector::new(options)?);
        let pool = Pool::new(connector, options.readers, options.statement_timeout);
        let asked = "SELECT format_type(atttypid, atttypmod) AS type FROM pg_attribute \
             WHERE attrelid = $1::text::regclass AND attname = $2 AND NOT attisdropped";
        let params = [(&name as _, Type::TEXT), (&table.user as _, Type::TEXT)];
        let found = pool.read(asked, &params).await.map_err(|error| wrong(error.into()))?;
        let row =
            found.first().ok_or_else(|| wrong(format!("{name} has no column {user}").into()))?;
        let kind: &str = rows::get(row, "type").map_err(|error| wrong(error.into()))?;
        // Compared as what the column is, so that its index serves.
        let sql = format!(
            "SELECT {of}::text AS of, {role}::text AS role FROM {name} \
             WHERE {user} = $1::text::{kind} LIMIT {limit}"
        );
        let reader = Self { pool, sql };
        // A name that is wrong is told now. Nobody is named so.
        match reader.rows("").await {
            Ok(_) => Ok(reader),
            Err(error) => Err(wrong(error.into())),
        }
    }

    /// What `user` is a member of, with his roles.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn of(&self, user: &str) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut found = Vec::new();
        for row in self.rows(user).await? {
            if let Some(of) = rows::get::<Option<String>>(&row, "of")? {
                found.push((of, rows::get(&row, "role")?));
            }
        }
        Ok(found)
    }

    async fn rows(&self, user: &str) -> Result<Vec<Row>, Error> {
        let param: Param<'_> = (&user, Type::TEXT);
        match self.pool.read(&self.sql, &[param]).await {
            // What cannot be a value of the column is in none of its rows.
            Err(Error::Unavailable { source }) if is_malformed(&source) => Ok(Vec::new()),
            rows => rows,
        }
    }
}

fn is_malformed(error: &BoxError) -> bool {
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code == Some(&SqlState::INVALID_TEXT_REPRESENTATION)
}

impl std::fmt::Debug for MembersReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MembersReader").field("sql", &self.sql).finish_non_exhaustive()
    }
}

/// A name as it stands in a statement, each of its parts quoted.
fn quoted(name: &str) -> Result<String, OpenError> {
    let parts: Vec<&str> = name.split('.').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if parts.len() > 2 || !parts.iter().all(is_part) {
        let detail = format!("`{name}` is not a name of A-Z a-z 0-9 _, or two with a dot between");
        return Err(OpenError::Url { detail });
    }
    Ok(parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_name() {
        assert_eq!(quoted("public.members").unwrap(), "\"public\".\"members\"");
        for wrong in ["", "a.b.c", "a;b", "a\"b", "a b", ".a", "ä"] {
            assert!(quoted(wrong).is_err(), "{wrong}");
        }
    }
}
