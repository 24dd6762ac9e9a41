//! `schema --ddl`: DDL statements for query engines and databases, from the current schemas of the service.

use super::files::TableChoice;
use crate::api::Client;
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::{LakeEngine, LakePlace, TableSchema, lake_prelude, lake_table};

/// The SQL dialect of the statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DdlFor {
    /// A query engine that reads the files of a target.
    Lake(LakeEngine, LakePlace),
    /// A database with the tables of the official client, given by the scheme of its connection string.
    #[cfg(feature = "sql")]
    Database(&'static str),
}

/// The statements for all selected tables.
///
/// # Errors
/// Kind `NotFound` for a table that the service does not have.
pub async fn ddl(client: &Client, namespace: &Namespace, tables: &TableChoice, of: &DdlFor) -> Result<String> {
    let tables: Vec<TableRef> = tables.resolve(client, namespace).await?;
    let mut text = String::from("-- Made by daplake; run it again when the schema changes.\n");
    text.push_str(&match of {
        DdlFor::Lake(engine, place) => lake_prelude(*engine, place, namespace.as_str()),
        #[cfg(feature = "sql")]
        DdlFor::Database(scheme) => crate::sink::sql::definition_of_namespace(scheme, namespace)?,
    });
    for table in tables {
        let answer = client.table_schema(&table).await.with_field("table", &table)?;
        let schema = TableSchema::read(&table, answer.version, answer.schema).with_field("table", &table)?;
        text.push('\n');
        text.push_str(&match of {
            DdlFor::Lake(engine, place) => lake_table(*engine, place, &schema),
            #[cfg(feature = "sql")]
            DdlFor::Database(scheme) => crate::sink::sql::definition(scheme, &schema).with_field("table", &table)?,
        });
    }
    Ok(text)
}
