//! Does with the old files what was decided over them: they stay, go, have rows marked, or are written anew without some rows.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Result;
use crate::sink::delta::log::file_names::Names;
use crate::sink::delta::log::table_log::ActiveFile;
use crate::sink::delta::merge::key_probe::{Fate, rewrite};
use crate::sink::delta::modes::load::{MarkedFile, Written};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;

/// Files of a table, and how new ones are written.
pub(in crate::sink::delta) struct OldFiles<'a> {
    pub(in crate::sink::delta) files: &'a [Arc<ActiveFile>],
    pub(in crate::sink::delta) format: &'a Arc<FileFormat>,
    pub(in crate::sink::delta) engine: &'a Engine,
    pub(in crate::sink::delta) names: Names,
    pub(in crate::sink::delta) target_file_bytes: u64,
}

impl OldFiles<'_> {
    /// One fate for each file. Rows that stay of a file that is written anew go to `writer`, or to files of their own.
    pub(in crate::sink::delta) async fn apply(
        &self,
        fates: Vec<Fate>,
        writer: &mut TableWriter,
        vectors: &mut VectorFile,
        written: &mut Written,
    ) -> Result<()> {
        for (number, fate) in fates.into_iter().enumerate() {
            let file = &self.files[number];
            match fate {
                Fate::Stays => {}
                Fate::Goes => written.removed[number] = true,
                Fate::IsMarked(gone) => {
                    written.removed[number] = true;
                    written.marked.push(MarkedFile { file: Arc::clone(file), vector: vectors.push(&gone)? });
                }
                Fate::IsRewritten(gone) => {
                    written.removed[number] = true;
                    // Small files are gathered with the new rows, large ones keep their range of keys to themselves.
                    if file.size < self.target_file_bytes / 4 {
                        rewrite(self.format, &file.located(), gone, self.engine, writer).await?;
                    } else {
                        let mut own = TableWriter::new(Arc::clone(self.format), self.names.clone());
                        rewrite(self.format, &file.located(), gone, self.engine, &mut own).await?;
                        written.added.extend(own.finish().await?);
                    }
                }
            }
        }
        Ok(())
    }
}
