-- From the tables, which show what another node has just committed.
SELECT
    EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1::text) AS has_schema,
    EXISTS (
        SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1::text AND c.relname = 'migrations'
    ) AS has_migrations
