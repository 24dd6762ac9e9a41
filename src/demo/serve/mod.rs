//! The school over HTTP: every endpoint of the DAP API, jobs with their life, signed URLs, ranges, limits, faults on command.
//! Nothing here is shared with the client: it has its own wire format, its own encoders, its own reading of table schemas.

mod clock;
mod counters;
mod encode;
mod endpoints;
mod faults;
mod http;
mod jobs;
mod options;
mod server;
mod source;
mod state;
#[cfg(test)]
mod tests;

pub use counters::{Counters, JobStart, Traffic};
pub use faults::catalogue::FaultHelp;
pub use faults::fault::{Damage, Endpoint, Fault, Refusal, RetryAfter, Spot, Times};
pub use options::ServeOptions;
pub use server::Server;
