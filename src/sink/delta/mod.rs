//! Delta tables.

mod columns;
mod conform;
mod evolve;
mod keys;
mod stats;
