//! Brings the bytes of objects: resumable ranged streams, several at once, fresh URLs, unpacked or spooled to files.
//! It never parses rows.
//!
//! - [`ObjectUrls`] trades the object ids of one job for URLs, late and in small batches. All downloads of the job share it.
//! - [`open`] gives the raw bytes of one object, in order, each exactly once, whatever happens to the connections underneath.
//! - [`unpacked`] turns that into the bytes of the file inside ([`Gunzip`] is the same without async).
//! - [`spool`] keeps the object as a file, and continues where an earlier process stopped.
//!
//! Nothing runs until it is pulled, and nothing here starts a task of its own: how many downloads run at once is up to the
//! caller. Streams and futures can be dropped at any await; a spool file then stays as `.part` for the next time.
//!
//! ```no_run
//! # async fn example(client: daplake::api::Client, job: daplake::api::FinishedJob) -> daplake::Result<()> {
//! use daplake::fetch::{ObjectUrls, open, unpacked};
//! use futures::TryStreamExt;
//!
//! let urls = ObjectUrls::new(&client, &job);
//! for object in &job.objects {
//!     let mut bytes = unpacked(open(&urls, object), job.query.format);
//!     while let Some(chunk) = bytes.try_next().await? {
//!         // hand `chunk` to a decoder
//!         # drop(chunk);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod file_name;
mod gunzip;
mod spool;
mod stream;
#[cfg(test)]
mod tests;
mod unpack;
mod urls;

pub use gunzip::{Gunzip, UnpackLimits};
pub(crate) use spool::too_large;
pub use spool::{SpoolOptions, Spooled, spool, spool_as, spool_within};
pub use stream::{ObjectStream, open};
pub use unpack::{Unpacked, unpacked, unpacked_within};
pub use urls::ObjectUrls;
