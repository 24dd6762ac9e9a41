//! Test databases of every kind: creation, rows as the server's own client reads them, and the list of data tables.

#[cfg(feature = "postgres")]
use std::collections::BTreeMap;

use daplake::TableRef;
use serde_json::Value;

#[cfg(feature = "mysql")]
use super::mysql::{Brand, Database};

/// A database of its own for one test.
pub trait TestDatabase: Send + Sync + Sized {
    /// `None` when there is no server and none is required.
    fn fresh() -> Option<Self>;

    /// [`TestDatabase::fresh`] on a private server.
    fn alone() -> Option<Self>;

    /// Kills the private server without a shutdown and starts it again.
    fn crash(&self);

    /// The connection string.
    fn url(&self) -> &str;

    /// Rows of each table as JSON, read by the server's own client: timestamps as microseconds and dates as days since 1970, decimals and
    /// floats as strings, values of lookup tables in place of their ids.
    fn rows_of(&self, tables: &[TableRef]) -> Vec<Vec<Value>>;

    /// The data tables (without sync state and lookup tables), sorted.
    fn data_tables(&self) -> Vec<String>;

    /// The number of tables in the sync state.
    fn known_tables(&self) -> u64;

    /// Ends all sessions of daplake; false if there were none.
    fn end_sessions(&self) -> bool;

    /// Removes a data table as a user would.
    fn drop_by_hand(&self, table: &TableRef);

    /// The output of a statement of a user.
    fn run(&self, sql: &str) -> String;

    /// The quoted name of a table.
    fn name_of(&self, table: &TableRef) -> String;

    /// Adds a column of numbers to a data table as a user would, all of them 7.
    fn add_by_hand(&self, table: &TableRef, column: &str);
}

#[cfg(feature = "postgres")]
impl TestDatabase for super::postgres::Database {
    fn fresh() -> Option<Self> {
        Self::new()
    }

    fn alone() -> Option<Self> {
        Self::alone()
    }

    fn crash(&self) {
        self.crash();
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn rows_of(&self, tables: &[TableRef]) -> Vec<Vec<Value>> {
        let list = self.psql(
            "SELECT json_build_array(n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), \
             (SELECT f.confrelid::regclass::text FROM pg_constraint f WHERE f.conrelid = c.oid AND f.contype = 'f' AND f.conkey = ARRAY[a.attnum])) \
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        );
        let mut columns: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for line in list.lines() {
            let (namespace, table, name, sql_type, lookup): (String, String, String, String, Option<String>) =
                serde_json::from_str(line).unwrap();
            let name = format!("\"{}\"", name.replace('"', "\"\""));
            let read = match (sql_type.as_str(), lookup) {
                (_, Some(lookup)) => format!("(SELECT l.value FROM {lookup} l WHERE l.id = t.{name})"),
                ("timestamp without time zone", _) => format!("(EXTRACT(EPOCH FROM t.{name}) * 1000000)::bigint"),
                ("date", _) => format!("(t.{name} - DATE '1970-01-01')"),
                ("real" | "double precision", _) => format!("t.{name}::text"),
                (numeric, _) if numeric.starts_with("numeric") => format!("t.{name}::text"),
                _ => format!("t.{name}"),
            };
            columns.entry((namespace, table)).or_default().push(format!("{read} AS {name}"));
        }
        let read = |table: &TableRef| {
            let read = &columns[&(table.namespace.to_string(), table.table.clone())];
            let rows = self.json(&format!(
                "SELECT row_to_json(x) FROM (SELECT {} FROM \"{}\".\"{}\" t) x",
                read.join(", "),
                table.namespace,
                table.table
            ));
            rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        tables.iter().map(read).collect()
    }

    fn data_tables(&self) -> Vec<String> {
        let list = self.psql(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('canvas', 'canvas_logs', 'catalog', 'new_quizzes') \
             AND tablename NOT LIKE '%\\_\\_%' ORDER BY 1",
        );
        list.lines().map(str::to_owned).collect()
    }

    fn known_tables(&self) -> u64 {
        if self.psql("SELECT to_regclass('instructure_dap.table_sync') IS NULL") == "t\n" {
            return 0;
        }
        self.psql("SELECT count(*) FROM instructure_dap.table_sync").trim().parse().unwrap()
    }

    fn end_sessions(&self) -> bool {
        let ended = self.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'daplake' AND datname = current_database()",
        );
        !ended.is_empty()
    }

    fn run(&self, sql: &str) -> String {
        self.psql(sql)
    }

    fn name_of(&self, table: &TableRef) -> String {
        format!("\"{}\".\"{}\"", table.namespace, table.table)
    }

    fn drop_by_hand(&self, table: &TableRef) {
        self.psql(&format!("DROP TABLE \"{}\".\"{}\"", table.namespace, table.table));
    }

    fn add_by_hand(&self, table: &TableRef, column: &str) {
        self.psql(&format!("ALTER TABLE \"{}\".\"{}\" ADD COLUMN {column} bigint DEFAULT 7", table.namespace, table.table));
    }
}

/// A database on MariaDB.
#[cfg(feature = "mysql")]
pub struct Mariadb(Database);

/// A database on a current MySQL.
#[cfg(feature = "mysql")]
pub struct Mysql(Database);

#[cfg(feature = "mysql")]
macro_rules! on_brand {
    ($type:ident) => {
        impl TestDatabase for $type {
            fn fresh() -> Option<Self> {
                Some(Self(Database::new(Brand::$type)?))
            }

            fn alone() -> Option<Self> {
                Some(Self(Database::alone(Brand::$type)?))
            }

            fn crash(&self) {
                self.0.crash();
            }

            fn url(&self) -> &str {
                &self.0.url
            }

            fn rows_of(&self, tables: &[TableRef]) -> Vec<Vec<Value>> {
                tables.iter().map(|table| self.0.rows(&format!("{}__{}", table.namespace, table.table))).collect()
            }

            fn data_tables(&self) -> Vec<String> {
                let list = self.0.sql(
                    "SELECT REPLACE(TABLE_NAME, '__', '.') FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
                     AND TABLE_NAME REGEXP '^(canvas|canvas_logs|catalog|new_quizzes)__' AND TABLE_NAME NOT LIKE '%!_!_%!_!_%' ESCAPE '!' \
                     ORDER BY 1",
                );
                list.lines().map(str::to_owned).collect()
            }

            fn known_tables(&self) -> u64 {
                if self.0.sql("SHOW TABLES LIKE 'instructure_dap__table_sync'").is_empty() {
                    return 0;
                }
                self.0.sql("SELECT COUNT(*) FROM instructure_dap__table_sync").trim().parse().unwrap()
            }

            fn end_sessions(&self) -> bool {
                let open = self.0.sql("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()");
                open.lines().for_each(|id| _ = self.0.sql(&format!("KILL {id}")));
                !open.is_empty()
            }

            fn run(&self, sql: &str) -> String {
                self.0.sql(sql)
            }

            fn name_of(&self, table: &TableRef) -> String {
                format!("`{}__{}`", table.namespace, table.table)
            }

            fn drop_by_hand(&self, table: &TableRef) {
                self.0.sql(&format!("DROP TABLE `{}__{}`", table.namespace, table.table));
            }

            fn add_by_hand(&self, table: &TableRef, column: &str) {
                self.0.sql(&format!("ALTER TABLE `{}__{}` ADD COLUMN {column} bigint DEFAULT 7", table.namespace, table.table));
            }
        }
    };
}

#[cfg(feature = "mysql")]
on_brand!(Mariadb);
#[cfg(feature = "mysql")]
on_brand!(Mysql);

/// The newest PostgreSQL.
#[cfg(feature = "postgres")]
pub struct Newest(super::postgres::Database);

#[cfg(feature = "postgres")]
impl TestDatabase for Newest {
    fn fresh() -> Option<Self> {
        super::postgres::Database::newest().map(Self)
    }

    fn alone() -> Option<Self> {
        super::postgres::Database::newest_alone().map(Self)
    }

    fn crash(&self) {
        self.0.crash();
    }

    fn url(&self) -> &str {
        &self.0.url
    }

    fn rows_of(&self, tables: &[TableRef]) -> Vec<Vec<Value>> {
        self.0.rows_of(tables)
    }

    fn data_tables(&self) -> Vec<String> {
        self.0.data_tables()
    }

    fn known_tables(&self) -> u64 {
        self.0.known_tables()
    }

    fn end_sessions(&self) -> bool {
        self.0.end_sessions()
    }

    fn drop_by_hand(&self, table: &TableRef) {
        self.0.drop_by_hand(table);
    }

    fn run(&self, sql: &str) -> String {
        self.0.run(sql)
    }

    fn name_of(&self, table: &TableRef) -> String {
        self.0.name_of(table)
    }

    fn add_by_hand(&self, table: &TableRef, column: &str) {
        self.0.add_by_hand(table, column);
    }
}
