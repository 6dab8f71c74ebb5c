WITH entry AS (
    SELECT octet_length(value) AS size FROM raw.records
    WHERE tenant = 'acme' AND kind = 'state' AND id = $1::bytea AND key = $2::bytea
        AND revision = $3::int8
    FOR UPDATE
), head AS (
    UPDATE raw.heads h SET
        revision = h.revision + 1,
        bytes = h.bytes - entry.size + octet_length($4::bytea),
        streams = jsonb_build_array(jsonb_build_array(
            'changes', 1, coalesce((h.streams -> 0 ->> 2)::int8, 0) + 1)),
        xid = pg_current_xact_id()
    FROM entry
    WHERE h.tenant = 'acme' AND h.kind = 'state' AND h.id = $1::bytea
    RETURNING h.revision, (h.streams -> 0 ->> 2)::int8 AS last
), written AS (
    UPDATE raw.records r SET revision = head.revision, value = $4::bytea
    FROM head
    WHERE r.tenant = 'acme' AND r.kind = 'state' AND r.id = $1::bytea AND r.key = $2::bytea
    RETURNING r.revision
)
INSERT INTO raw.entries (tenant, kind, id, stream, sequence, revision, value)
SELECT 'acme', 'state', $1::bytea, 'changes', head.last, head.revision, $5::bytea
FROM head, written
RETURNING revision, sequence
