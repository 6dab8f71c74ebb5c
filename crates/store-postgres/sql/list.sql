SELECT id FROM {schema}.heads
WHERE tenant = $1::text AND kind = $2::text AND ($3::bytea IS NULL OR id > $3::bytea)
ORDER BY id
LIMIT $4::int8
