SELECT tenant, kind, id, key FROM {schema}.records
WHERE bucket = $2::int2 AND expires <= (SELECT {now})
ORDER BY expires
LIMIT $3::int8
