//! Delta Lake tables: rows, schema and bookmark in one commit.
