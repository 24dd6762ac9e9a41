//! `views.sql` at the root of a target: DuckDB views over its tables. It knows tables by their names and by the views that were
//! made of them; what a version holds is said by [`crate::sink::delta::publish`].

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::error::{Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::store::{Place, explained};

const NAME: &str = "views.sql";
/// Where the views of single tables are, in an object store.
const FOLDER: &str = "views";
const SECRET: &str =
    "-- DuckDB needs to know who you are first, such as by: CREATE SECRET (TYPE s3, PROVIDER credential_chain);\n";

/// Writes views over Delta tables. The text does not depend on versions, so that it is written only when there are other tables.
pub(in crate::sink::delta) async fn of_delta_tables(place: &Place, tables: &[TableRef]) -> Result<()> {
    let mut text = String::from("-- DuckDB views over the tables of this target, made by daplake: .read views.sql\n");
    if place.folder().is_none() {
        text.push_str(SECRET);
    }
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
    put(place, text).await
}

/// Where the views of single tables of Parquet files are, in an object store.
pub(in crate::sink::delta) fn folder(place: &Place) -> Path {
    place.root().clone().join(FOLDER)
}

/// Where the view of one table of Parquet files is, in an object store.
pub(in crate::sink::delta) fn of_table(place: &Place, table: &TableRef) -> Path {
    folder(place).join(format!("{table}.sql"))
}

/// Gathers the views of single tables into one file.
pub(in crate::sink::delta) async fn gather(place: &Place) -> Result<()> {
    let store = place.store();
    let folder = folder(place);
    let listed: Result<Vec<_>, _> = store.list(Some(&folder)).try_collect().await;
    let mut found = listed.map_err(|error| place.unusable(error))?;
    found.retain(|object| object.location.filename().is_some_and(|name| name.ends_with(".sql")));
    found.sort_by(|a, b| a.location.cmp(&b.location));
    let mut text = String::from("-- DuckDB views over the tables of this target, made by daplake: .read views.sql\n");
    text.push_str(SECRET);
    for object in found {
        let read = async { store.get(&object.location).await?.bytes().await }.await;
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&read.map_err(|error| place.unusable(error))?));
    }
    put(place, text).await
}

/// Writes the file unless it is like that already.
async fn put(place: &Place, text: String) -> Result<()> {
    let (store, name) = (place.store(), place.root().clone().join(NAME));
    let present = async { store.get(&name).await?.bytes().await }.await;
    if present.is_ok_and(|present| present == text.as_bytes()) {
        return Ok(());
    }
    let put = store.put(&name, PutPayload::from(text)).await;
    put.map(|_| ()).context(Kind::Target, "The file of views cannot be written").map_err(explained)
}
