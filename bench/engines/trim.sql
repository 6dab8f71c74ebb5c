DELETE FROM raw.entries
WHERE tenant = 'acme' AND kind = 'state' AND id = $1::bytea AND stream = 'changes'
    AND sequence < $2::int8
