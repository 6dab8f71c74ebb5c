-- Asked once the heads are locked.
SELECT {now} AS now, {fingerprint} AS fingerprint,
    current_setting('synchronous_commit') = 'off' AS is_unsafe
