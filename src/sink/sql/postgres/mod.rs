//! PostgreSQL 12 and newer.

mod change;
mod connection;
mod dialect;
mod encode;
mod failure;
mod options;
mod passfile;
mod types;

pub(super) use connection::PostgresServer;
pub(super) use options::complete;
