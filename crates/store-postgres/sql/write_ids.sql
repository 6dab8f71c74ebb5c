INSERT INTO {schema}.commit_ids
    (tenant, kind, id, commit_id, digest, at, incarnation, revision, sequences)
SELECT u.tenant, u.kind, u.id, u.commit_id, u.digest, u.at, u.incarnation, u.revision,
    u.sequences::int8[]
FROM unnest(
    $1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::int8[], $7::int8[],
    $8::int8[], $9::text[]
) AS u (tenant, kind, id, commit_id, digest, at, incarnation, revision, sequences)
ON CONFLICT (tenant, kind, id, commit_id) DO UPDATE SET
    digest = EXCLUDED.digest, at = EXCLUDED.at, incarnation = EXCLUDED.incarnation,
    revision = EXCLUDED.revision, sequences = EXCLUDED.sequences
