//! `views.sql` at the root of a target: DuckDB views over its tables.

use object_store::{ObjectStoreExt, PutPayload};

use crate::error::{Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::store::{Place, explained};

/// Name of the file at the root of a target.
pub(crate) const FILE_NAME: &str = "views.sql";

/// How every version of the file begins.
const BEGINNING: &[u8] = b"-- DuckDB views over the tables of this ";

/// Whether a file of this name may be replaced: daplake has written it, or it is empty.
pub(crate) fn is_replaceable(present: &[u8]) -> bool {
    let is_ours = present.is_empty() || present.starts_with(BEGINNING);
    if !is_ours {
        tracing::warn!(
            "The target has a file {FILE_NAME} that daplake did not write; it is left as it is, and no views are written"
        );
    }
    is_ours
}

/// The first lines of the file for a target.
pub(crate) fn header(place: &Place) -> String {
    let mut text = String::from("-- DuckDB views over the tables of this target, made by daplake: .read views.sql\n");
    if place.folder().is_none() {
        text.push_str("-- DuckDB needs credentials first, for example: CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n");
    }
    text
}

/// Writes views over Delta tables. The text does not depend on versions, so the file changes only if the set of tables does.
pub(crate) async fn write_delta_views(place: &Place, tables: &[TableRef]) -> Result<()> {
    let mut text = header(place);
    text.push_str("INSTALL delta;\nLOAD delta;\n");
    let base = match place.folder() {
        Some(folder) => format!("{}/", folder.display()),
        None => place.location().to_string(),
    };
    let name = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    for table in tables {
        let namespace = name(table.namespace.as_str());
        let path = format!("{base}{}/{}", table.namespace, table.table).replace('\'', "''");
        text.push_str(&format!(
            "\nCREATE SCHEMA IF NOT EXISTS {namespace};\nCREATE OR REPLACE VIEW {namespace}.{} AS SELECT * FROM delta_scan('{path}');\n",
            name(&table.table)
        ));
    }
    put_if_changed(place, text).await
}

/// Writes the file, unless it has this text already.
pub(crate) async fn put_if_changed(place: &Place, text: String) -> Result<()> {
    let (store, name) = (place.store(), place.root().clone().join(FILE_NAME));
    let present = async { store.get(&name).await?.bytes().await }.await;
    if present.is_ok_and(|present| present == text.as_bytes() || !is_replaceable(&present)) {
        return Ok(());
    }
    let put = store.put(&name, PutPayload::from(text)).await;
    put.map(|_| ()).context(Kind::Target, "`views.sql` cannot be written").map_err(explained)
}
