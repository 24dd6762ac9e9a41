//! Where a load was begun: hands out the work, and makes of what is told what a commit needs. It trusts nobody to have done all of it:
//! changes that were read, notes that were taken and files that were looked into are counted on both sides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringBitmap;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::schema::{Deletes, TableMode};
use crate::sink::delta::distributed::steps::rows_of;
use crate::sink::delta::distributed::{ApplyOrder, HASH, KeyFile, Order, TableOrder, Told, read_told, rows_of_texts, texts_of};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_names::Uncommitted;
use crate::sink::delta::merge::dedup::{RowsOfFiles, Settling};
use crate::sink::delta::modes::load::{DeltaLoad, MarkedFile, Written};
use crate::sink::delta::write::deletion_vectors::file_of;
use crate::sink::delta::write::parquet_writer::NewFile;
use crate::sink::{LoadKind, Source, Work, Workers};

/// New files that are looked for at once.
const LOOKS_AT_ONCE: usize = 16;
/// Attempts at work that was lost with the processes that did it.
const ATTEMPTS: usize = 3;

/// What was told, taken apart.
#[derive(Debug, Default)]
struct Heard {
    files: Vec<((u64, u32), NewFile)>,
    upserted: u64,
    changes: u64,
    settled: HashMap<(u64, u32), (u64, RoaringBitmap)>,
    keys: Vec<KeyFile>,
    changed: Vec<(usize, Option<deltalake::kernel::DeletionVectorDescriptor>)>,
    /// Parts of old files that were looked into.
    applied: usize,
    deleted: u64,
    vector_bytes: u64,
}

impl Heard {
    fn of(batches: &[RecordBatch]) -> Result<Self> {
        let mut heard = Self::default();
        for batch in batches {
            for text in texts_of(batch)? {
                match read_told(text)? {
                    Told::File { writer, file } => heard.files.push(((writer, file.number), file)),
                    Told::Wrote { upserted, changes } => {
                        heard.upserted += upserted;
                        heard.changes += changes;
                    }
                    Told::Settled(files) => {
                        for (writer, file, notes, replaced) in files {
                            let (count, rows) = heard.settled.entry((writer, file)).or_default();
                            *count += notes;
                            if let Some(replaced) = replaced {
                                *rows |= rows_of(&replaced)?;
                            }
                        }
                    }
                    Told::Keys(file) => heard.keys.push(file),
                    Told::Changed { number, vector } => heard.changed.push((number, vector)),
                    Told::Applied { deleted, vector_bytes } => {
                        heard.applied += 1;
                        heard.deleted += deleted;
                        heard.vector_bytes += vector_bytes;
                    }
                }
            }
        }
        Ok(heard)
    }

    /// Every change that was read has come to somebody who wrote, once.
    fn check_changes(&self, read: u64) -> Result<()> {
        match self.changes == read {
            true => Ok(()),
            false => Err(unfit().with_field("changes read", read).with_field("changes written", self.changes)),
        }
    }

    /// All rows of all files were noted, once, and no others. A part that was begun twice may have left notes of both.
    fn check_notes(&self) -> Result<()> {
        let is_noted =
            |(name, file): &((u64, u32), NewFile)| self.settled.get(name).is_some_and(|(notes, _)| *notes == file.rows);
        match self.files.iter().all(is_noted) && self.settled.len() == self.files.len() {
            true => Ok(()),
            false => Err(unfit().with_field("files", self.files.len()).with_field("files noted", self.settled.len())),
        }
    }
}

fn unfit() -> Error {
    Error::new(Kind::Unavailable, "What the processes of the cluster did does not fit together")
        .hint("one of them was probably lost in the middle; run it again")
}

impl DeltaLoad {
    /// Whether others can do this load: the usual mode without marks, feeds and changes of these.
    pub(in super::super) fn can_be_parted(&self) -> bool {
        let is_usual = self.layout.mode == TableMode::Current && self.layout.deletes == Deletes::Remove;
        is_usual && !self.design.purges && !self.feeds()
    }

    /// Writes the load by others; again, if they were lost.
    pub(in super::super) async fn parted(&self, workers: &dyn Workers) -> Result<Written> {
        let mut attempt = 1;
        loop {
            let written = match self.plan.kind {
                LoadKind::Replace => self.replace_by(workers).await,
                LoadKind::Merge => self.merge_by(workers).await,
            };
            match written {
                Err(error) if error.kind() == Kind::Unavailable && attempt < ATTEMPTS => {
                    tracing::warn!(table = %self.plan.table, %error, attempt, "The work was lost; handing it out anew");
                    self.uncommitted.remove().await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn table_order(&self) -> Result<TableOrder> {
        let table = &self.plan.table;
        // Two folders above the table.
        let root = self.log.location.reveal().join("../../").context(Kind::Bug, "The target's address cannot be used")?;
        Ok(TableOrder {
            namespace: table.namespace.as_str().to_owned(),
            table: table.table.clone(),
            root,
            schema: LakeColumn::schema_string(&self.design.columns),
            keys: self.keys.clone(),
            target_file_bytes: self.options.target_file_bytes,
            compression_level: self.options.compression_level,
        })
    }

    /// Takes files into our hands: they go if this load comes to nothing.
    fn adopt(&self, heard: &mut Heard) {
        let names = self.uncommitted.names();
        for (_, file) in &mut heard.files {
            file.number = names.add(&file.name);
        }
        for (_, vector) in &heard.changed {
            if let Some(name) = vector.as_ref().and_then(file_of) {
                names.add(&name);
            }
        }
    }

    /// Others may have written to another place than the one that is committed to.
    async fn check_there(&self, heard: &Heard) -> Result<()> {
        let files = heard.files.iter().map(|(_, file)| (file.name.clone(), Some(file.bytes)));
        let vectors = heard.changed.iter().filter_map(|(_, vector)| Some((file_of(vector.as_ref()?)?, None)));
        let files: BTreeMap<String, Option<u64>> = files.chain(vectors).collect();
        let store = self.log.store();
        let looks = stream::iter(files).map(move |(name, bytes)| is_there(Arc::clone(&store), name, bytes));
        looks.buffer_unordered(LOOKS_AT_ONCE).try_collect().await
    }

    async fn replace_by(&self, workers: &dyn Workers) -> Result<Written> {
        let steps = vec![Order::Write(self.table_order()?).step(Vec::new())?, Order::Settle.step(vec![HASH.to_owned()])?];
        let done = workers.run(Work { source: Source::Changes, steps }).await?;
        let mut heard = Heard::of(&done.batches)?;
        self.adopt(&mut heard);
        heard.check_changes(done.changes)?;
        heard.check_notes()?;
        self.check_there(&heard).await?;
        let mut gone = RowsOfFiles::new();
        for (name, file) in &heard.files {
            if let Some((_, rows)) = heard.settled.remove(name).filter(|(_, rows)| !rows.is_empty()) {
                gone.insert(file.number, rows);
            }
        }
        let (format, names) = (self.format(1), self.uncommitted.names());
        let settling = Settling { engine: &self.options.engine, format: &format, names: &names, rule: self.mark_rule() };
        let files = heard.files.into_iter().map(|(_, file)| file).collect();
        let (added, vector_bytes, replaced) = settling.take_out(&gone, files).await?;
        let upserted = heard.upserted - replaced;
        Ok(Written { added, vector_bytes, upserted, removed: vec![true; self.files().len()], ..Written::default() })
    }

    async fn merge_by(&self, workers: &dyn Workers) -> Result<Written> {
        let table = self.table_order()?;
        let steps = vec![Order::Merge(table.clone()).step(self.keys.clone())?];
        let done = workers.run(Work { source: Source::Changes, steps }).await?;
        let mut heard = Heard::of(&done.batches)?;
        let keys = Uncommitted::new(self.log.store(), self.log.folder.clone());
        heard.keys.iter().for_each(|file| _ = keys.names().add(&file.name));
        self.adopt(&mut heard);
        heard.check_changes(done.changes)?;
        self.check_there(&heard).await?;
        let mut written = Written { removed: vec![false; self.files().len()], upserted: heard.upserted, ..Written::default() };
        written.added.extend(heard.files.into_iter().map(|(_, file)| file));
        if self.files().is_empty() || (heard.keys.is_empty() && !self.design.rewrites) {
            return Ok(written);
        }

        let parts = self.described(workers.parts())?;
        let asked = parts.len();
        let order = ApplyOrder { table, keys: heard.keys, rewrites: self.design.rewrites, rule: self.mark_rule() };
        let steps = vec![Order::Apply(order).step(Vec::new())?];
        let done = workers.run(Work { source: Source::Rows(parts), steps }).await?;
        let mut heard = Heard::of(&done.batches)?;
        self.adopt(&mut heard);
        if heard.applied != asked {
            return Err(unfit().with_field("parts", asked).with_field("parts done", heard.applied));
        }
        self.check_there(&heard).await?;
        written.added.extend(heard.files.into_iter().map(|(_, file)| file));
        for (number, vector) in heard.changed {
            let known = self.files().get(number).zip(written.removed.get_mut(number));
            let (file, removed) = known.ok_or_else(|| Error::new(Kind::Bug, "A file was changed that nobody was given"))?;
            *removed = true;
            written.marked.extend(vector.map(|vector| MarkedFile { file: Arc::clone(file), vector }));
        }
        written.deleted = heard.deleted;
        written.vector_bytes = heard.vector_bytes;
        keys.remove().await;
        Ok(written)
    }

    /// Old files, described, in so many parts of about the same size.
    fn described(&self, parts: usize) -> Result<Vec<RecordBatch>> {
        let keys = self.key_columns();
        let key = keys.first().ok_or_else(|| Error::new(Kind::Bug, "A table has no key"))?;
        let count = parts.clamp(1, self.files().len().max(1));
        let mut texts: Vec<Vec<String>> = vec![Vec::new(); count];
        let mut least: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|part| Reverse((0, part))).collect();
        let mut files: Vec<usize> = (0..self.files().len()).collect();
        files.sort_by_key(|number| Reverse(self.files()[*number].size));
        for number in files {
            let Some(Reverse((bytes, part))) = least.pop() else { continue };
            let file = &self.files()[number];
            let facts = serde_json::to_string(&file.facts(number, key)).context(Kind::Bug, "A file cannot be described")?;
            texts[part].push(facts);
            least.push(Reverse((bytes + file.size, part)));
        }
        texts.into_iter().map(rows_of_texts).collect()
    }
}

/// Whether a file is where it is going to be looked for, and whole.
async fn is_there(store: Arc<dyn ObjectStore>, name: String, bytes: Option<u64>) -> Result<()> {
    let hint = "executors need the same endpoint and options of the store as this process; on several machines, the target has to be an object store";
    let found = store.head(&Path::from(name.as_str())).await;
    let found = found.context(Kind::Target, "A file that an executor wrote is not at the target");
    let found = found.map_err(|error| error.with_field("file", &name).hint(hint))?;
    match bytes {
        Some(bytes) if bytes != found.size => {
            Err(Error::new(Kind::Target, "A file at the target has another size than its writer said")
                .with_field("file", name)
                .with_field("size", found.size)
                .with_field("written", bytes)
                .hint(hint))
        }
        _ => Ok(()),
    }
}
