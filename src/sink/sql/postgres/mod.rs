//! PostgreSQL 12 and newer.

mod change;
mod connection;
mod dialect;
mod encode;
mod login;
mod options;
mod tls;
mod types;

pub(super) use connection::PostgresServer;
