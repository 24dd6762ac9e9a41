//! SQL Server 2019 and newer, and Babelfish for PostgreSQL, which speaks the same protocol.
//!
//! The driver does not know UTF-8 collations: it would send and read `varchar` in the code page of the collation's locale. Strings therefore
//! travel as `nvarchar`, and the server converts them to the `varchar` columns of the layout.

mod change;
mod connection;
mod dialect;
mod encode;
mod errors;
mod kept_rows;
mod names;
mod options;
mod staged;
#[cfg(test)]
mod tests;
mod tls;
mod types;

pub(super) use connection::MssqlServer;
