-- Not the values: the rules need only their length.
SELECT u.place, r.key, r.revision, octet_length(r.value) AS size, r.expires
FROM unnest($1::int8[], $2::text[], $3::text[], $4::bytea[], $5::bytea[])
    AS u (place, tenant, kind, id, key)
JOIN {schema}.records r
    ON r.tenant = u.tenant AND r.kind = u.kind AND r.id = u.id AND r.key = u.key
