UPDATE {schema}.heads h SET
    life = u.life, incarnation = u.incarnation, revision = u.revision, fence = u.fence,
    wake = u.wake, bytes = u.bytes, known_from = u.known_from, streams = u.streams::jsonb,
    xid = pg_current_xact_id()
FROM unnest(
    $1::text[], $2::text[], $3::bytea[], $4::int4[], $5::int8[], $6::int8[], $7::int8[],
    $8::int8[], $9::int8[], $10::int8[], $11::text[]
) AS u (tenant, kind, id, life, incarnation, revision, fence, wake, bytes, known_from, streams)
WHERE h.tenant = u.tenant AND h.kind = u.kind AND h.id = u.id
