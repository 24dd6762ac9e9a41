"""Compares the Iceberg view of tables with the tables: every snapshot, read by pyiceberg, by DuckDB's Iceberg extension and, if it is
installed, by Spark, must have the same columns and rows as its Delta version, read by DuckDB's Delta extension.

usage: iceberg.py TABLE_FOLDER...
"""

import collections
import glob
import json
import os
import struct
import sys
import tempfile
import zipfile

import duckdb
import duckdb_extension_avro
import duckdb_extension_delta
import duckdb_extension_iceberg
import pyarrow
from pyiceberg.table import StaticTable


def connected():
    connection = duckdb.connect()
    for module, name in [(duckdb_extension_avro, "avro"), (duckdb_extension_delta, "delta"), (duckdb_extension_iceberg, "iceberg")]:
        extension = glob.glob(list(module.__path__)[0] + f"/extensions/*/{name}.duckdb_extension")[0]
        connection.execute(f"LOAD '{extension}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def multiset(names, rows):
    """The names of the columns, and the rows with the number of times that they occur."""
    text = lambda value: str(value).removesuffix("+00:00")
    lines = (json.dumps(dict(zip(names, row)), sort_keys=True, default=text) for row in rows)
    return sorted(names), collections.Counter(lines)


def rows_of(table):
    """The rows of an Arrow table. Python cannot represent years after 9999, so times are compared as numbers."""
    columns = []
    for name, column in zip(table.column_names, table.columns):
        if pyarrow.types.is_timestamp(column.type):
            column = column.cast(pyarrow.timestamp("us", column.type.tz)).cast(pyarrow.int64())
        elif pyarrow.types.is_date32(column.type):
            column = column.cast(pyarrow.int32())
        columns.append(column.to_pylist())
    return multiset(table.column_names, zip(*columns))


def spark_session():
    """A Spark session that reads Iceberg tables; `None` if Spark is not installed."""
    try:
        import pyspark
        import snowpark_connect_deps_iceberg
        from pyspark.sql import SparkSession
    except ImportError:
        return None
    # This package of the runtime leaves out some classes of Jackson. Spark has them, under their original name.
    jackson = os.path.join(tempfile.mkdtemp(), "jackson.jar")
    relocate(glob.glob(os.path.join(pyspark.__path__[0], "jars", "jackson-[acd][nora]*-2*.jar")), jackson)
    runtime = glob.glob(os.path.join(snowpark_connect_deps_iceberg.__path__[0], "jars", "iceberg-spark-runtime-3.5_2.12-*.jar"))
    builder = SparkSession.builder.master("local[1]").config("spark.jars", ",".join(runtime + [jackson]))
    builder = builder.config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC")
    session = builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def relocate(jars, target):
    """Writes the classes of Jackson under the name that the Iceberg runtime uses."""
    prefix = "org/apache/iceberg/shaded/"
    with zipfile.ZipFile(target, "w") as out:
        for jar in jars:
            with zipfile.ZipFile(jar) as classes:
                for name in classes.namelist():
                    if name.startswith("com/fasterxml/") and name.endswith(".class"):
                        out.writestr(prefix + name, relocated(classes.read(name), prefix))


def relocated(code, prefix):
    """A class file with another package in its constants."""
    sizes = {3: 5, 4: 5, 5: 9, 6: 9, 7: 3, 8: 3, 9: 5, 10: 5, 11: 5, 12: 5, 15: 4, 16: 3, 17: 5, 18: 5, 19: 3, 20: 3}
    count = struct.unpack(">H", code[8:10])[0]
    out, at, number = bytearray(code[:10]), 10, 1
    while number < count:
        tag = code[at]
        if tag == 1:
            length = struct.unpack(">H", code[at + 1 : at + 3])[0]
            text = code[at + 3 : at + 3 + length]
            for old in ["com/fasterxml/jackson", "com.fasterxml.jackson"]:
                new = prefix.replace("/", old[3]) + old
                text = text.replace(old.encode(), new.encode())
            out += b"\x01" + struct.pack(">H", len(text)) + text
            at += 3 + length
        else:
            out += code[at : at + sizes[tag]]
            at += sizes[tag]
            number += tag in (5, 6)
        number += 1
    return bytes(out) + code[at:]


def spark_rows(session, folder, snapshot):
    from pyspark.sql import functions

    frame = session.read.format("iceberg").option("snapshot-id", snapshot).load(folder)
    numbers = {"timestamp": functions.unix_micros, "date": functions.unix_date}
    quoted = lambda name: "`" + name.replace("`", "``") + "`"
    columns = [numbers.get(kind, lambda column: column)(functions.col(quoted(name))).alias(name) for name, kind in frame.dtypes]
    rows = frame.select(columns).collect() if columns else []
    plain = lambda value: value.asDict(True) if hasattr(value, "asDict") else value
    items = lambda value: [plain(item) for item in value] if isinstance(value, list) else plain(value)
    return multiset([name for name, _ in frame.dtypes], ([items(value) for value in row] for row in rows))

def main():
    connection, spark = connected(), spark_session()
    compared = 0
    for folder in sys.argv[1:]:
        hint = open(os.path.join(folder, "metadata", "version-hint.text")).read().strip()
        path = os.path.join(folder, "metadata", f"v{hint}.metadata.json")
        table = StaticTable.from_metadata(path)
        for snapshot in table.metadata.snapshots:
            version = int(snapshot.summary["delta.version"])
            wanted = rows_of(connection.execute(f"SELECT * FROM delta_scan(?, version = {version})", [folder]).to_arrow_table())
            scans = {
                "pyiceberg": lambda: table.scan(snapshot_id=snapshot.snapshot_id).to_arrow(),
                "duckdb": lambda: connection.execute(
                    f"SELECT * FROM iceberg_scan(?, snapshot_from_id = {snapshot.snapshot_id})", [folder]
                ).to_arrow_table(),
            }
            found_by = {reader: rows_of(scan()) for reader, scan in scans.items()}
            if spark:
                found_by["spark"] = spark_rows(spark, folder, snapshot.snapshot_id)
            for reader, found in found_by.items():
                if found != wanted:
                    missing, surplus = wanted[1] - found[1], found[1] - wanted[1]
                    print(f"{reader}, {folder}, version {version}: {len(missing)} rows are missing, {len(surplus)} are surplus")
                    print(f"columns {wanted[0]} and {found[0]}")
                    print("missing:", *list(missing)[:3], "surplus:", *list(surplus)[:3], sep="\n")
                    sys.stdout.flush()
                    os._exit(1)
                compared += 1
    print(f"{compared} scans of {len(sys.argv) - 1} tables compared")
    sys.stdout.flush()
    # Threads of the libraries can crash the interpreter when it shuts down, so it exits at once.
    os._exit(0)


main()
