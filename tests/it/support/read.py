"""Reads Delta tables with other people's readers and prints them as JSON lines, one table after the other.

usage: read.py (deltalake|duckdb|polars) TABLE_FOLDER...

Times are microseconds since 1970 (UTC), dates are days, decimals and floats are text; everything else is plain JSON.
"""

import datetime
import decimal
import json
import os
import sys

import pyarrow
from deltalake import DeltaTable

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


def arrow_table(reader, folder):
    table = DeltaTable(folder)
    marked = "deletionVectors" in (table.protocol().reader_features or [])
    if reader == "deltalake":
        # Its reader by way of pyarrow refuses tables with deletion vectors; its own engine reads them.
        if not marked:
            return table.to_pyarrow_table()
        from deltalake import QueryBuilder

        return pyarrow.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    if reader == "polars":
        import polars

        return polars.read_delta(folder).to_arrow()
    if marked:
        raise SystemExit("DuckDB without its extension for Delta does not know deletion vectors")
    import duckdb

    files = table.file_uris()
    if not files:
        return table.to_pyarrow_table()
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute("SELECT * FROM read_parquet(?, union_by_name = true)", [files]).to_arrow_table()


def main():
    reader, folders = sys.argv[1], sys.argv[2:]
    for folder in folders:
        for row in arrow_table(reader, folder).to_pylist():
            print(json.dumps({name: plain(value) for name, value in row.items()}))
        print("end")
    # The libraries' threads may crash an interpreter that tears itself down under load; all is said by now.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
