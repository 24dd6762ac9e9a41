//! Catalogs, in which query engines look for tables: entries with columns, descriptions, location and format.
//!
//! A catalog describes Delta tables that are already committed and never holds what a load needs, so nothing here may fail one. What is
//! registered, and when, is decided in `ops`.
//!
//! - `names`: from a table of the service to its name in a catalog.
//! - `glue`, `glue_table`: AWS Glue, its calls and its form of a table.

mod glue;
mod glue_table;
mod names;

use url::Url;

use self::glue::Glue;
pub use self::glue::Registered;
use self::names::CatalogName;
pub(crate) use self::names::LEAVE_OUT_HINT;
pub use self::names::NameTemplate;
use crate::error::Result;
use crate::model::TableRef;
use crate::sink::CatalogEntry;
use crate::store::StoreOptions;

/// The kind of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogKind {
    /// AWS Glue Data Catalog.
    Glue,
}

/// The options of a catalog.
#[derive(Debug, Clone)]
pub struct CatalogOptions {
    /// The kind.
    pub kind: CatalogKind,
    /// Names of databases.
    pub database: NameTemplate,
    /// Names of tables.
    pub table: NameTemplate,
    /// Options in the form `name=value`.
    pub options: Vec<String>,
}

/// A catalog of the tables of one target.
pub struct Catalog {
    glue: Glue,
    database: NameTemplate,
    table: NameTemplate,
}

impl Catalog {
    /// A catalog for the tables at `target`, with the credentials of its store. Does not connect.
    ///
    /// # Errors
    /// Kind `Usage` for an invalid option, `Unsupported` if the catalog cannot list tables at this target, `Target` if there are no
    /// credentials.
    pub fn open(options: &CatalogOptions, target: &Url, store: &StoreOptions) -> Result<Self> {
        let CatalogOptions { kind: CatalogKind::Glue, database, table, options } = options;
        Ok(Self { glue: Glue::open(options, target, store)?, database: database.clone(), table: table.clone() })
    }

    /// Identifies the catalog and the names in it: what is known about one is not true of another.
    pub fn identity(&self) -> String {
        format!("{} {}.{}", self.glue.identity(), self.database, self.table)
    }

    /// Checks that the catalog can be reached with the credentials. Changes nothing.
    ///
    /// # Errors
    /// Kind `Target` or `Unavailable`.
    pub async fn check(&self) -> Result<()> {
        self.glue.check().await
    }

    /// Creates or updates the entry of a table.
    ///
    /// # Errors
    /// Kind `Target` if the catalog refuses it or has another table of this name, `Unavailable` if it cannot be reached.
    pub async fn register(&self, entry: &CatalogEntry) -> Result<Registered> {
        self.glue.register(&self.name_of(&entry.table), entry).await
    }

    fn name_of(&self, table: &TableRef) -> CatalogName {
        CatalogName { database: self.database.of(table), table: self.table.of(table) }
    }
}
