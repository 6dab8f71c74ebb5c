SELECT t.now, {fingerprint} AS fingerprint, h.life, h.incarnation, h.revision, h.fence, h.wake,
    h.bytes, h.known_from, h.streams::text AS streams
FROM (SELECT {now} AS now) t
LEFT JOIN {schema}.heads h ON h.tenant = $2::text AND h.kind = $3::text AND h.id = $4::bytea
