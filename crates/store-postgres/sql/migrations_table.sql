CREATE TABLE {schema}.migrations (
    number int4 PRIMARY KEY,
    applied timestamptz NOT NULL DEFAULT now()
)
