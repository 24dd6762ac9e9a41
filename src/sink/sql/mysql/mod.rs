//! MySQL 8 and MariaDB 10.11 and newer.

mod change;
mod connection;
mod dialect;
mod encode;
mod errors;
mod grants;
mod kept_rows;
mod names;
mod options;
#[cfg(test)]
mod tests;
mod types;

pub(super) use connection::MysqlServer;
