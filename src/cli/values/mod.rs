//! Values of options as people write them: moments, sizes, durations, paces.

pub(in crate::cli) mod moment;
