//! SQL databases, in the official client's layout, so that either program can continue where the other stopped. A sink never calls the
//! service.
//!
//! A load (`load/`) is written once over two interfaces: `dialect/` is the SQL, `connection/` the sessions. A database is a folder with both.
//! A load is one transaction: staging, schema change, upsert, delete, bookmark.

mod connection;
mod database;
mod dialect;
mod encoding;
mod load;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
mod occupants;
mod options;
#[cfg(feature = "postgres")]
mod postgres;
mod privileges;
mod sink;
mod sync_state;

pub use self::options::{DependentViews, NonFinite, SqlOptions};
pub use self::sink::{Figures, SqlSink, definition, definition_of_namespace, knows_scheme};
