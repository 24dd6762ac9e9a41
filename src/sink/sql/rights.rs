//! Whether the user may make what a first load makes, by making it and undoing it.

use serde_json::json;

use super::Shared;
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;

/// The table of each namespace is new, under a name that no table of the service has.
pub(super) async fn check(shared: &Shared, namespaces: &[Namespace]) -> Result<()> {
    let _one_of_few = shared.question().await?;
    let mut session = shared.session().await?;
    let tried = try_all(shared, session.as_mut(), namespaces).await;
    // After a failure the session ends, and with it what is not committed.
    tried.hint("the user must be allowed to make schemas and tables in this database")?;
    shared.give_back(session);
    Ok(())
}

async fn try_all(shared: &Shared, session: &mut dyn super::Connection, namespaces: &[Namespace]) -> Result<()> {
    let dialect = shared.dialect();
    let has_meta = shared.has_meta(session).await?;
    for namespace in namespaces {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let table = TableRef::new(namespace.as_str(), format!("daplake_check_{}", &id[..8]));
        let source = json!({"properties": {
            "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
            "value": {"properties": {"text": {"type": "string"}}}
        }});
        let made = dialect.table_of(&TableSchema::read(&table, 1, source)?)?;
        let define = dialect.create_table(&made).into_iter().chain(dialect.add_key(&made));
        if !dialect.ddl_is_transactional() {
            // Each statement commits by itself, so the table is dropped again, and the book-keeping is not made just to look.
            for statement in define {
                session.execute(&statement).await.with_field("namespace", namespace)?;
            }
            session.execute(&dialect.drop_table(&table)).await.with_field("namespace", namespace)?;
            continue;
        }
        session.execute(&dialect.begin()).await?;
        let meta = if has_meta { Vec::new() } else { dialect.create_meta() };
        for statement in meta.into_iter().chain(dialect.create_namespace(namespace)).chain(define) {
            session.execute(&statement).await.with_field("namespace", namespace)?;
        }
        session.execute(&dialect.rollback()).await?;
    }
    Ok(())
}
