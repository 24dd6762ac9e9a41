//! Whether the user has the privileges that a first load needs: creates what it creates, and undoes it.

use serde_json::json;

use super::connection::Connection;
use super::database::Database;
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;

/// Checks the privileges for the sync state and for a table in each namespace. The table has a name that no table of the service has.
pub(super) async fn check(database: &Database, namespaces: &[Namespace]) -> Result<()> {
    let _slot = database.query_slot().await?;
    let mut session = database.session().await?;
    if !database.has_sync_state(session.as_mut()).await? {
        database.check_sync_state_privileges(session.as_mut()).await?;
    }
    // After a failure the session ends, and the server rolls back.
    let created = create_and_undo(database, session.as_mut(), namespaces).await;
    created.hint("allow the user to create schemas and tables in this database")?;
    database.give_back(session);
    Ok(())
}

async fn create_and_undo(database: &Database, session: &mut dyn Connection, namespaces: &[Namespace]) -> Result<()> {
    let dialect = database.dialect();
    let has_sync_state = database.has_sync_state(session).await?;
    for namespace in namespaces {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let name = TableRef::new(namespace.as_str(), format!("daplake_check_{}", &id[..8]));
        let source = json!({"properties": {
            "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
            "value": {"properties": {"text": {"type": "string"}}}
        }});
        let table = dialect.table_of(&TableSchema::read(&name, 1, source)?)?;
        let create_table = dialect.create_table(&table).into_iter().chain(dialect.add_key(&table));
        if !dialect.ddl_is_transactional() {
            // Schema statements commit, so the table is dropped, and the sync state is not created for a check.
            for statement in create_table {
                session.execute(&statement).await.with_field("namespace", namespace)?;
            }
            session.execute(&dialect.drop_table(&name)).await.with_field("namespace", namespace)?;
            continue;
        }
        session.execute(&dialect.begin()).await?;
        let create_meta = if has_sync_state { Vec::new() } else { dialect.create_meta() };
        for statement in create_meta.into_iter().chain(dialect.create_namespace(namespace)).chain(create_table) {
            session.execute(&statement).await.with_field("namespace", namespace)?;
        }
        session.execute(&dialect.rollback()).await?;
    }
    Ok(())
}
