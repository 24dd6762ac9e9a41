//! The documentation: samples are run, options and links exist, the language is plain.

#[cfg(unix)]
pub mod readme;
mod style;
