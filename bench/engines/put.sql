INSERT INTO raw.records (tenant, kind, id, key, bucket, revision, value, expires)
VALUES ('acme', $1::text, $2::bytea, $3::bytea, 0, 1, $4::bytea, $5::int8)
