-- Locked in the order of their names, so that no two transactions wait for each other.
SELECT u.place, h.life, h.incarnation, h.revision, h.fence, h.wake, h.bytes, h.known_from,
    h.streams::text AS streams
FROM unnest($1::text[], $2::text[], $3::bytea[])
    WITH ORDINALITY AS u (tenant, kind, id, place)
JOIN {schema}.heads h ON h.tenant = u.tenant AND h.kind = u.kind AND h.id = u.id
ORDER BY h.tenant, h.kind, h.id
FOR UPDATE OF h
