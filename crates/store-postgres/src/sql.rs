//! The statements, with the schema and the ways to tell the time filled in.

/// The store's time in milliseconds: `$1` itself in tests; else the server's clock, though never
/// before the latest time that this node has seen, which comes as `$1` below zero.
const NOW: &str = "(CASE WHEN $1::int8 > 0 THEN $1::int8 ELSE greatest(-$1::int8, \
    floor(extract(epoch FROM clock_timestamp()) * 1000)::int8) END)";

/// Which server answers: it changes with every restart and every failover, and costs nothing.
const FINGERPRINT: &str = "(left(pg_walfile_name(pg_current_wal_lsn()), 8) || '/' || \
    extract(epoch FROM pg_postmaster_start_time())::text)";

macro_rules! statements {
    ($($name:ident),+ $(,)?) => {
        /// Every statement, by the name of its file.
        #[derive(Debug)]
        pub(crate) struct Sql {
            $(pub(crate) $name: String,)+
        }

        impl Sql {
            pub(crate) fn new(schema: &str) -> Self {
                Self {
                    $($name: fill(include_str!(concat!("../sql/", stringify!($name), ".sql")), schema),)+
                }
            }
        }
    };
}

statements! {
    schema, migrations_table, server, latest_life, begin_life,
    make_heads, lock_heads, now, load_records, load_ids,
    write_heads, unmake_heads, write_records, write_entries, trim_entries, trim_later, write_ids,
    head, get, scan, read, changes, due, list, expired,
    touched, tell, forget_deletions, forget_ids, forget_trimmed,
}

/// A statement with what it leaves open filled in. `schema` needs no quoting.
pub(crate) fn fill(text: &str, schema: &str) -> String {
    text.replace("{schema}", schema).replace("{now}", NOW).replace("{fingerprint}", FINGERPRINT)
}
