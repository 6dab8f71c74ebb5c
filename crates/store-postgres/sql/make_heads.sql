-- A row to lock for each partition that is not there yet.
INSERT INTO {schema}.heads
    (tenant, kind, id, bucket, life, incarnation, revision, fence, bytes, known_from, streams, xid)
SELECT u.tenant, u.kind, u.id, u.bucket, 0, 0, 0, 0, 0, 0, '[]', '0'
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int2[])
    WITH ORDINALITY AS u (tenant, kind, id, bucket, place)
ORDER BY u.place
ON CONFLICT (tenant, kind, id) DO NOTHING
