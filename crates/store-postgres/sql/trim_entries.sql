DELETE FROM {schema}.entries e
USING unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::int8[], $6::int8[])
    AS u (tenant, kind, id, stream, first, until)
WHERE e.tenant = u.tenant AND e.kind = u.kind AND e.id = u.id AND e.stream = u.stream
    AND e.sequence >= u.first AND e.sequence < u.until
