SELECT value FROM raw.records
WHERE tenant = 'acme' AND kind = 'session' AND id = $1::bytea AND key = $2::bytea
    AND (expires IS NULL OR expires > floor(extract(epoch FROM clock_timestamp()) * 1000)::int8)
