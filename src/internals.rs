//! What the program, its tests, benches and fuzz targets need besides the public API. No promise of compatibility covers it: items change and
//! disappear in any release.

/// The HTTP client.
pub mod api {
    pub use crate::api::*;
}

/// The command line.
pub mod cli {
    pub use crate::cli::*;
}

/// Loads on a cluster.
#[cfg(feature = "cluster")]
pub mod cluster {
    pub use crate::cluster::*;
}

/// Decoders of objects.
pub mod decode {
    pub use crate::decode::*;
}

/// The DataFusion session, and streams of batches.
#[cfg(feature = "lake")]
pub mod engine {
    pub use crate::engine::*;
}

/// Errors.
pub mod error {
    pub use crate::error::*;
}

/// Downloads of objects.
pub mod fetch {
    pub use crate::fetch::*;
}

/// Terms of the service.
pub mod model {
    pub use crate::model::*;
}

/// Commands.
pub mod ops {
    pub use crate::ops::internal::*;

    /// Databases.
    #[cfg(feature = "sql")]
    pub mod databases {
        pub use crate::ops::databases::*;
    }

    /// Downloads into a folder.
    pub mod files {
        pub use crate::ops::files::*;
    }
}

/// HTML pages.
pub mod page {
    pub use crate::page::*;
}

/// Progress of a run.
pub mod progress {
    pub use crate::progress::*;
}

/// Secrets, and text from outside.
pub mod redact {
    pub use crate::redact::*;
}

/// Change sets and deduplication.
#[cfg(feature = "lake")]
pub mod reduce {
    pub use crate::reduce::*;
}

/// The objects of a job as streams of changes.
#[cfg(feature = "lake")]
pub mod scan {
    pub use crate::scan::*;
}

/// Schemas of tables.
pub mod schema {
    pub use crate::schema::*;
}

/// Targets.
#[cfg(feature = "lake")]
pub mod sink {
    pub use crate::sink::internal::*;

    /// Delta tables.
    pub mod delta {
        pub use crate::sink::delta::*;
    }

    /// Plain Parquet folders.
    pub mod parquet_folder {
        pub use crate::sink::parquet_folder::*;
    }

    /// Databases.
    #[cfg(feature = "sql")]
    pub mod sql {
        pub use crate::sink::sql::*;
    }
}

/// Local folders and object stores.
#[cfg(feature = "lake")]
pub mod store {
    pub use crate::store::*;
}
