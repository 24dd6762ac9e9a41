//! HTTP: connections, routing, rate limits and responses.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod rate_limit;
pub(crate) mod router;
