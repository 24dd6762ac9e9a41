//! Downloads of objects: resumable streams, decompression, and files.
//!
//! - [`ObjectUrls`] gets pre-signed URLs for the objects of one job, late and in small batches. All downloads of the job share it.
//! - [`open`] streams the stored bytes of one object in order, each exactly once, through any number of connections.
//! - [`unpacked`] streams the content of a gzip object ([`Gunzip`] does the same without async).
//! - [`spool`] downloads an object to a file, and resumes the download of an earlier process.
//!
//! Streams are lazy, and no tasks are spawned: the caller decides how many downloads run at the same time. Streams and futures can be dropped
//! at any await; an unfinished file stays as `.part` and is resumed by the next call.

mod file_name;
mod gunzip;
mod spool;
mod stream;
#[cfg(test)]
mod tests;
mod unpack;
mod urls;

pub use gunzip::{Gunzip, UnpackLimits};
#[cfg(feature = "lake")]
pub(crate) use spool::too_large;
pub use spool::{SpoolOptions, Spooled, spool, spool_as, spool_within};
pub use stream::{ObjectStream, open};
pub use unpack::{Unpacked, unpacked, unpacked_within};
pub use urls::ObjectUrls;
