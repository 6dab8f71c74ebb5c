-- What the server keeps, and which server it is.
SELECT
    current_setting('server_version_num')::int4 AS version,
    pg_is_in_recovery() AS is_in_recovery,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    CASE WHEN pg_is_in_recovery() THEN '' ELSE {fingerprint} END AS fingerprint,
    concat_ws('/',
        CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'execute')
            THEN (SELECT system_identifier FROM pg_control_system())::text ELSE '-' END,
        CASE WHEN pg_is_in_recovery() THEN '-'
            ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        -- Not to_regclass, which may answer from a cache that does not know of it yet.
        (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1::text AND c.relname = 'heads')
    ) AS identity,
    extract(epoch FROM pg_postmaster_start_time())::text AS started,
    inet_client_port() AS client_port
