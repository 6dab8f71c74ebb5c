SELECT life, identity, salt FROM {schema}.lives ORDER BY life DESC LIMIT 1
