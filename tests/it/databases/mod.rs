//! Databases as targets, on real servers.

#[cfg(feature = "postgres")]
mod ddl;
#[cfg(feature = "postgres")]
mod interchange;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod postgres_sessions;
mod sql;
