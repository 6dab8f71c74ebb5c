SELECT tenant, kind, id FROM {schema}.heads
WHERE bucket = $2::int2 AND wake <= (SELECT {now})
ORDER BY wake
LIMIT $3::int8
