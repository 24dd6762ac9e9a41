//! PostgreSQL 12 and newer.

mod change;
mod connection;
mod dependents;
mod dialect;
mod encode;
mod errors;
mod kept_rows;
mod names;
mod options;
mod passfile;
#[cfg(test)]
mod tests;
mod types;

pub(super) use connection::PostgresServer;
pub(super) use options::complete;
