//! Examples of the library against the embedded server, without account and network. They are one program, since every program links the
//! large dependencies again.
//!
//!     cargo run --example tour -- delta        # or database, own_sink, files, arrow, notify

#![allow(clippy::print_stdout, reason = "an example prints its results")]
#![allow(unreachable_pub, reason = "an example exports nothing")]

mod arrow;
mod database;
mod delta;
mod files;
mod notify;
mod own_sink;
mod practice;

#[tokio::main]
async fn main() -> daplake::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("delta") => delta::run().await,
        Some("database") => database::run().await,
        Some("own_sink") => own_sink::run().await,
        Some("files") => files::run().await,
        Some("arrow") => arrow::run().await,
        Some("notify") => notify::run().await,
        _ => {
            println!("usage: tour delta | database | own_sink | files | arrow | notify");
            Ok(())
        }
    }
}
