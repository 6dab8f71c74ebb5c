INSERT INTO {schema}.entries (tenant, kind, id, stream, sequence, revision, value)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::bytea[], $4::text[], $5::int8[], $6::int8[], $7::bytea[]
)
