"""Reads a Parquet folder with DuckDB.

    daplake sync --target ./parquet --format parquet --table users,enrollments,courses
    pip install duckdb
    python examples/parquet_duckdb.py ./parquet
"""

import sys

import duckdb

folder = sys.argv[1] if len(sys.argv) > 1 else "./parquet"
connection = duckdb.connect()

# One table: every file of its folder.
print(connection.sql(f"SELECT workflow_state, count(*) AS users FROM '{folder}/canvas/users/*.parquet' GROUP BY 1 ORDER BY 2 DESC"))

# All tables as views that name the files of one version.
with open(f"{folder}/views.sql", encoding="utf-8") as views:
    connection.execute(views.read())
print(connection.sql("""
    SELECT c.name AS course, count(DISTINCT e.user_id) AS people
    FROM canvas.courses c JOIN canvas.enrollments e ON e.course_id = c.id
    GROUP BY 1 ORDER BY 2 DESC LIMIT 5
"""))
