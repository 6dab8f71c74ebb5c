INSERT INTO {schema}.records
    (tenant, kind, id, key, bucket, revision, value, expires, deleted_at)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::int2[], $6::int8[], $7::bytea[],
    $8::int8[], $9::int8[]
)
ON CONFLICT (tenant, kind, id, key) DO UPDATE SET
    revision = EXCLUDED.revision, value = EXCLUDED.value, expires = EXCLUDED.expires,
    deleted_at = EXCLUDED.deleted_at
