//! The school over HTTP: every endpoint of the DAP API, jobs with their life, signed URLs, ranges, limits, faults on command.
//! Nothing here is shared with the client: it has its own wire format, its own encoders, its own reading of table schemas.

mod answer;
mod catalogue;
mod clock;
mod counters;
mod delivery;
mod encode;
mod fault;
mod faults;
mod job;
mod limit;
mod link;
mod login;
mod mangle;
mod object;
mod options;
mod query;
mod route;
mod server;
mod source;
mod state;
mod store;
#[cfg(test)]
mod tests;

pub use catalogue::FaultHelp;
pub use counters::{Counters, JobStart, Traffic};
pub use fault::{Damage, Endpoint, Fault, Refusal, RetryAfter, Spot, Times};
pub use options::ServeOptions;
pub use server::Server;
