INSERT INTO {schema}.trimmed (tenant, kind, id, stream, until)
SELECT u.tenant, u.kind, u.id, u.stream, max(u.until)
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::int8[])
    AS u (tenant, kind, id, stream, until)
GROUP BY 1, 2, 3, 4
ON CONFLICT (tenant, kind, id, stream) DO UPDATE SET until = greatest(trimmed.until, EXCLUDED.until)
