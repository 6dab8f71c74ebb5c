INSERT INTO {schema}.lives (life, identity, salt) VALUES ($1, $2, $3)
