//! Synchronising into a database, whose URL is in `DAPLAKE_TARGET` (such as postgresql://user:password@host/database).

use daplake::ops::{self, SyncRequest, Target};
use daplake::{Error, Kind, Result};

use super::practice;

pub async fn run() -> Result<()> {
    let Ok(url) = std::env::var("DAPLAKE_TARGET") else {
        println!("set DAPLAKE_TARGET to the URL of an empty database");
        return Ok(());
    };
    // Parts that are missing in the URL are taken from PGHOST, PGUSER, ~/.pgpass and so on, read by this function.
    let target = url.parse::<Target>()?.completed(&|name| std::env::var(name).ok())?;
    if !matches!(target, Target::Database(_)) {
        return Err(
            Error::new(Kind::Usage, "The target is not a database").hint("write postgresql://..., mysql://... or mssql://...")
        );
    }
    let (_school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let sink = ops::open_sink(&target, &engine)?;
    // Reports a wrong password or missing privileges before any job is started.
    sink.check().await?;
    let report = ops::sync(SyncRequest::new(client, sink.clone(), engine, practice::selection())).await?;
    println!("{} tables at {}, {} failed", report.tables.len(), sink.location(), report.failed().count());
    Ok(())
}
