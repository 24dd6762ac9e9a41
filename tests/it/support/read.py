"""Reads lake tables with other programs and prints them as JSON lines, one table after the other.

usage: read.py (deltalake|duckdb|polars|folder|views|duckdb-delta|pyiceberg|duckdb-iceberg|chdb|daft|sail) TABLE_FOLDER...
       read.py comments TABLE_FOLDER

Times are microseconds since 1970 (UTC), dates are days, decimals and floats are text; everything else is plain JSON.
"""

import datetime
import decimal
import glob
import json
import os
import sys

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MICROSECOND = datetime.timedelta(microseconds=1)


def plain(value):
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise TypeError("a time without zone")
        return (value - EPOCH) // MICROSECOND
    if isinstance(value, datetime.date):
        return (value - EPOCH.date()).days
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def by_deltalake(folder):
    import pyarrow
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(folder)
    # Its pyarrow reader refuses tables with deletion vectors; its query engine reads them.
    if not has_deletion_vectors(table):
        return table.to_pyarrow_table()
    return pyarrow.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())


def by_polars(folder):
    import polars

    return polars.read_delta(folder).to_arrow()


def by_duckdb(folder):
    """Reads the list of data files."""
    import duckdb
    from deltalake import DeltaTable

    table = DeltaTable(folder)
    if has_deletion_vectors(table):
        raise SystemExit("DuckDB without its Delta extension does not support deletion vectors")
    files = table.file_uris()
    if not files:
        return table.to_pyarrow_table()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * FROM read_parquet(?, union_by_name = true)", [files]).to_arrow_table()


def by_folder(folder):
    """Reads a folder of plain Parquet files."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * FROM read_parquet(?, union_by_name = true)", [folder + "/*.parquet"]).to_arrow_table()


def by_views(folder):
    """Reads the view in `views.sql` at the target."""
    import duckdb

    root, namespace, table = folder.rstrip("/").rsplit("/", 2)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    with open(root + "/views.sql") as views:
        connection.execute(views.read())
    return connection.execute(f'SELECT * FROM "{namespace}"."{table}"').to_arrow_table()


def by_duckdb_delta(folder):
    import duckdb
    import duckdb_extension_delta

    extension = glob.glob(list(duckdb_extension_delta.__path__)[0] + "/extensions/*/delta.duckdb_extension")[0]
    connection = duckdb.connect()
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * FROM delta_scan(?)", [folder]).to_arrow_table()


def by_pyiceberg(folder):
    from pyiceberg.table import StaticTable

    with open(folder + "/metadata/version-hint.text") as hint:
        return StaticTable.from_metadata(f"{folder}/metadata/v{hint.read().strip()}.metadata.json").scan().to_arrow()


def by_duckdb_iceberg(folder):
    import duckdb
    import duckdb_extension_avro
    import duckdb_extension_iceberg

    connection = duckdb.connect()
    for module, name in [(duckdb_extension_avro, "avro"), (duckdb_extension_iceberg, "iceberg")]:
        extension = glob.glob(list(module.__path__)[0] + f"/extensions/*/{name}.duckdb_extension")[0]
        connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * FROM iceberg_scan(?)", [folder]).to_arrow_table()


def by_chdb(folder):
    # It reads only below the working folder.
    os.chdir("/")
    import chdb

    return chdb.query(f"SELECT * FROM deltaLakeLocal('{folder}')", "ArrowTable")


def by_daft(folder):
    import daft

    return daft.read_deltalake(folder).to_arrow()


def by_sail(folder, session=[]):
    if not session:
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        server = SparkConnectServer()
        server.start()
        session.append(SparkSession.builder.remote(f"sc://localhost:{server.listening_address[1]}").getOrCreate())
        session.append(server)
        session[0].conf.set("spark.sql.session.timeZone", "UTC")
    return session[0].read.format("delta").load(folder).toArrow()


READERS = {
    "deltalake": by_deltalake,
    "polars": by_polars,
    "duckdb": by_duckdb,
    "folder": by_folder,
    "views": by_views,
    "duckdb-delta": by_duckdb_delta,
    "pyiceberg": by_pyiceberg,
    "duckdb-iceberg": by_duckdb_iceberg,
    "chdb": by_chdb,
    "daft": by_daft,
    "sail": by_sail,
}


def has_deletion_vectors(table):
    return "deletionVectors" in (table.protocol().reader_features or [])


def without_empty_structs(value):
    """ClickHouse has a struct of nulls in place of a null struct."""
    if isinstance(value, dict):
        members = {name: without_empty_structs(member) for name, member in value.items()}
        return None if all(member is None for member in members.values()) else members
    return value


def comments(folder):
    """Prints the descriptions of a table and its columns, as PyPI `deltalake` reads them."""
    from deltalake import DeltaTable

    table = DeltaTable(folder)
    fields = {field.name: field.metadata.get("comment") for field in table.schema().fields}
    print(json.dumps({"table": table.metadata().description, "columns": fields}))


def main():
    reader, folders = sys.argv[1], sys.argv[2:]
    if reader == "comments":
        return comments(folders[0])
    for folder in folders:
        for row in READERS[reader](folder).to_pylist():
            row = {name: plain(value) for name, value in row.items()}
            if reader == "chdb":
                row = {name: without_empty_structs(value) for name, value in row.items()}
            print(json.dumps(row))
        print("end")
    # Threads of the libraries can crash the interpreter when it shuts down, so it exits at once.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
