SELECT u.place, c.commit_id, c.digest, c.at, c.incarnation, c.revision, c.sequences
FROM unnest($1::int8[], $2::text[], $3::text[], $4::bytea[], $5::bytea[])
    AS u (place, tenant, kind, id, commit_id)
JOIN {schema}.commit_ids c
    ON c.tenant = u.tenant AND c.kind = u.kind AND c.id = u.id AND c.commit_id = u.commit_id
