INSERT INTO raw.heads
    (tenant, kind, id, bucket, life, incarnation, revision, fence, bytes, known_from, streams, xid)
VALUES ('acme', $1::text, $2::bytea, 0, 1, 1, 1, 0, 0, 0, '[]', pg_current_xact_id())
