//! Serves the school over HTTP: the endpoints of the DAP API, jobs that expire, signed URLs, byte ranges, rate limits, and faults on demand.
//! Nothing is shared with the client: the wire format, the encoders and the reader of table schemas are separate.

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
