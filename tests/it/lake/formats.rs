//! Increments in every format and mode.

use daplake::internals::model::Mode;
use daplake::{Format, ops};

use crate::support::{World, canvas, failures, school, web_logs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_read_the_same_in_every_format_and_mode() {
    let tables = [canvas("courses"), canvas("assignments"), canvas("assignment_groups"), canvas("submissions"), web_logs()];
    let modes = [
        (Format::Jsonl, None),
        (Format::Csv, Some(Mode::Expanded)),
        (Format::Csv, Some(Mode::Condensed)),
        (Format::Tsv, Some(Mode::Expanded)),
        (Format::Tsv, Some(Mode::Condensed)),
        (Format::Parquet, None),
    ];
    for (format, mode) in modes {
        let world = World::new(school(&tables)).await;
        for step in 0..3 {
            if step > 0 {
                world.school.advance();
            }
            let mut request = world.request();
            (request.format, request.mode) = (format, mode);
            assert_eq!(failures(&ops::sync(request).await.unwrap()), [""; 0], "{format} {mode:?}");
        }
        world.assert_tables("deltalake", &tables, world.school.now());
    }
}
