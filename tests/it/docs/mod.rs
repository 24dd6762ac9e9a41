//! The documentation: samples are run, options and links exist, the language is plain.

#[cfg(unix)]
mod readme;
mod style;
