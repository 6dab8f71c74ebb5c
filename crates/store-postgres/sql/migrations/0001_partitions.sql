-- Partitions, what they hold, and the lives of the database.
--
-- Numbers that the port counts without a sign and that are only compared for equality here
-- (incarnations, fences) are stored as the same 64 bits with one.

-- Each row: from then on the database may have lost its tail (see docs/adr/0010).
CREATE TABLE {schema}.lives (
    life int4 PRIMARY KEY,
    identity text NOT NULL,
    salt int8 NOT NULL,
    began timestamptz NOT NULL DEFAULT now()
);

-- One row per partition; it is locked while the partition changes.
CREATE TABLE {schema}.heads (
    tenant text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    bucket int2 NOT NULL,
    -- The life in which the row was last written.
    life int4 NOT NULL,
    incarnation int8 NOT NULL,
    -- 0 only within the transaction that makes the row.
    revision int8 NOT NULL,
    fence int8 NOT NULL,
    wake int8,
    bytes int8 NOT NULL,
    known_from int8 NOT NULL,
    -- [name, first, last] of each stream.
    streams jsonb NOT NULL,
    -- Of the transaction that last changed the partition: what other nodes poll for.
    xid xid8 NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
CREATE INDEX heads_wake ON {schema}.heads (bucket, wake) WHERE wake IS NOT NULL;
CREATE INDEX heads_xid ON {schema}.heads (xid);

-- The latest change of each key: a record, or a deletion (no value) that is still known.
CREATE TABLE {schema}.records (
    tenant text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    key bytea NOT NULL,
    bucket int2 NOT NULL,
    revision int8 NOT NULL,
    value bytea,
    expires int8,
    deleted_at int8,
    PRIMARY KEY (tenant, kind, id, key)
);
CREATE INDEX records_revision ON {schema}.records (tenant, kind, id, revision);
CREATE INDEX records_expires ON {schema}.records (bucket, expires) WHERE expires IS NOT NULL;
CREATE INDEX records_deleted_at ON {schema}.records (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE {schema}.entries (
    tenant text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    stream text COLLATE "C" NOT NULL,
    sequence int8 NOT NULL,
    revision int8 NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (tenant, kind, id, stream, sequence)
);

-- Entries that were trimmed and are not deleted yet: those of a long trim.
CREATE TABLE {schema}.trimmed (
    tenant text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    stream text COLLATE "C" NOT NULL,
    until int8 NOT NULL,
    PRIMARY KEY (tenant, kind, id, stream)
);

-- The first reply to each named commit.
CREATE TABLE {schema}.commit_ids (
    tenant text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    commit_id bytea NOT NULL,
    digest bytea NOT NULL,
    at int8 NOT NULL,
    incarnation int8 NOT NULL,
    revision int8 NOT NULL,
    sequences int8[] NOT NULL,
    PRIMARY KEY (tenant, kind, id, commit_id)
);
CREATE INDEX commit_ids_at ON {schema}.commit_ids (at);

-- Another user of the same database sees nothing, even where a grant was given by mistake.
-- FORCE binds the owner too; the policy is for the role that runs this migration alone.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['migrations', 'lives', 'heads', 'records', 'entries', 'trimmed', 'commit_ids']
    LOOP
        EXECUTE format('ALTER TABLE {schema}.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE {schema}.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own ON {schema}.%I TO CURRENT_USER USING (true) WITH CHECK (true)', name);
        EXECUTE format('REVOKE ALL ON {schema}.%I FROM PUBLIC', name);
    END LOOP;
END
$$;
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
