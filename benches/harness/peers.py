"""Other tools on the way from gzipped JSON lines of the service to one table. Runs in an environment with `requirements.txt`.

usage: peers.py NAME SCHEMA OUT FILE.gz...

NAME is duckdb, duckdb-1 (one thread), duckdb-days (partitioned by the day of `timestamp`), polars, deltalake or dlt. SCHEMA is a JSON file: {"key": {column: type}, "value": {column: type}}
with types of DuckDB. Every tool is given the types, so that none has to infer them; every output has the key and value columns,
compressed by zstd.
"""

import gzip
import json
import pathlib
import sys


def duckdb(schema, out, files, threads=None, by_day=False):
    import duckdb

    connection = duckdb.connect()
    connection.sql("SET preserve_insertion_order = false")
    if threads:
        connection.sql(f"SET threads = {threads}")
    struct = {
        group: "STRUCT(" + ", ".join(f'"{name}" {kind}' for name, kind in columns.items()) + ")" for group, columns in schema.items()
    }
    rows = (
        f"SELECT unnest(key), unnest(value) FROM read_json({files!r}, format = 'newline_delimited', columns = {struct!r},"
        f" maximum_object_size = 268435456, compression = 'gzip')"
    )
    if by_day:
        rows = f"SELECT *, CAST(timestamp AS DATE) AS day FROM ({rows})"
    target = f"'{out}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day))" if by_day else f"'{out}.parquet' (FORMAT parquet, COMPRESSION zstd)"
    connection.sql(f"COPY ({rows}) TO {target}")


def arrow_type(kind):
    import pyarrow as pa

    plain = {
        "BIGINT": pa.int64(),
        "INTEGER": pa.int32(),
        "SMALLINT": pa.int16(),
        "DOUBLE": pa.float64(),
        "FLOAT": pa.float32(),
        "BOOLEAN": pa.bool_(),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us"),
        "VARCHAR": pa.string(),
    }
    return pa.list_(plain[kind[:-2]]) if kind.endswith("[]") else plain[kind]


def arrow_schema(schema):
    import pyarrow as pa

    return pa.schema([(group, pa.struct([(name, arrow_type(kind)) for name, kind in schema[group].items()])) for group in schema])


def polars(schema, out, files):
    import polars as pl

    plain = {
        "BIGINT": pl.Int64,
        "INTEGER": pl.Int32,
        "SMALLINT": pl.Int16,
        "DOUBLE": pl.Float64,
        "FLOAT": pl.Float32,
        "BOOLEAN": pl.Boolean,
        # The reader of polars has no timestamps in nested values; they are parsed later.
        "DATE": pl.String,
        "TIMESTAMP": pl.String,
        "VARCHAR": pl.String,
    }
    kind_of = lambda kind: pl.List(plain[kind[:-2]]) if kind.endswith("[]") else plain[kind]
    read = {group: pl.Struct({name: kind_of(kind) for name, kind in schema[group].items()}) for group in schema}
    times = [name for group in schema for name, kind in schema[group].items() if kind == "TIMESTAMP"]
    dates = [name for group in schema for name, kind in schema[group].items() if kind == "DATE"]
    rows = pl.scan_ndjson(files, schema=read).unnest("key", "value")
    rows = rows.with_columns(pl.col(times).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us"), pl.col(dates).str.to_date())
    rows.sink_parquet(f"{out}.parquet", compression="zstd")


def deltalake(schema, out, files):
    import deltalake
    import pyarrow as pa
    import pyarrow.json

    read = pyarrow.json.ParseOptions(explicit_schema=arrow_schema(schema), unexpected_field_behavior="ignore")
    blocks = pyarrow.json.ReadOptions(block_size=16 << 20)
    flat = pa.schema([(name, arrow_type(kind)) for group in schema for name, kind in schema[group].items()])

    def batches():
        for file in files:
            with gzip.open(file) as stream:
                for batch in pyarrow.json.open_json(stream, read_options=blocks, parse_options=read):
                    columns = [column for group in schema for column in batch.column(group).flatten()]
                    yield pa.RecordBatch.from_arrays(columns, schema=flat)

    properties = deltalake.WriterProperties(compression="ZSTD")
    reader = pa.RecordBatchReader.from_batches(flat, batches())
    deltalake.write_deltalake(out, reader, writer_properties=properties)


def dlt(schema, out, files):
    import os

    os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", DLT_DATA_DIR=f"{out}.dlt", NORMALIZE__LOADER_FILE_FORMAT="parquet")
    import dlt

    def rows():
        for file in files:
            with gzip.open(file) as stream:
                for line in stream:
                    record = json.loads(line)
                    yield {**record["key"], **(record.get("value") or {})}

    columns = {name: {"data_type": "text"} for group in schema for name, kind in schema[group].items() if kind == "VARCHAR"}
    pipeline = dlt.pipeline("compare", destination=dlt.destinations.filesystem(out), dataset_name="data", pipelines_dir=f"{out}.pipelines")
    pipeline.run(dlt.resource(rows, name="rows", columns=columns, max_table_nesting=0), loader_file_format="parquet")


def main():
    name, schema, out, *files = sys.argv[1:]
    schema = json.loads(pathlib.Path(schema).read_text())
    if name == "duckdb-1":
        duckdb(schema, out, files, threads=1)
    elif name == "duckdb-days":
        duckdb(schema, out, files, by_day=True)
    else:
        {"duckdb": duckdb, "polars": polars, "deltalake": deltalake, "dlt": dlt}[name](schema, out, files)


if __name__ == "__main__":
    main()
