//! The driver's side of a distributed load: [`RemoteExecutor`] runs the tasks of a load by an [`Executor`], and turns their reports into
//! the changes of a commit. All results are verified: the changes that were read, the row locations that were received and the files that were probed are counted on both
//! sides, and reported files are looked up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use deltalake::kernel::DeletionVectorDescriptor;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringBitmap;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::schema::{Deletes, TableMode};
use crate::sink::delta::distributed::location_batch::KEY_HASH;
use crate::sink::delta::distributed::task_report::{FileId, KeyFile, TaskReport, batch_of, texts_of};
use crate::sink::delta::distributed::task_spec::{ProbeSpec, TableSpec, TaskSpec};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::{FileChanges, NewFile, VectorUpdate};
use crate::sink::delta::merge::post_write_dedup::RowsByFile;
use crate::sink::delta::modes::context::LoadContext;
use crate::sink::delta::modes::upsert::{self, UpsertExecutor, WrittenSnapshot};
use crate::sink::delta::write::deletion_vectors::file_of;
use crate::sink::delta::write::uncommitted_files::UncommittedFiles;
use crate::sink::{Executor, Task, TaskChain, TaskInput, WriteError};

/// New files that are looked up concurrently.
const CONCURRENT_LOOKUPS: usize = 16;
/// Attempts at tasks whose executors were lost.
const ATTEMPTS: usize = 3;

/// The reports of all tasks of a job.
#[derive(Debug, Default)]
struct CollectedReports {
    files: Vec<(FileId, NewFile)>,
    upserted: u64,
    /// Changes that were read by tasks that write.
    changes: u64,
    /// For each file, the number of its row locations and the rows that a newer change replaces.
    locations: HashMap<FileId, (u64, RoaringBitmap)>,
    key_files: Vec<KeyFile>,
    /// Existing files that are removed or get another deletion vector.
    changed_files: Vec<(usize, Option<DeletionVectorDescriptor>)>,
    /// Number of parts of the existing files that were probed.
    probed_parts: usize,
    deleted: u64,
    vector_file_bytes: u64,
}

impl CollectedReports {
    fn new(batches: &[RecordBatch]) -> Result<Self> {
        let mut collected = Self::default();
        for batch in batches {
            for text in texts_of(batch)? {
                collected.add(TaskReport::decode(text)?)?;
            }
        }
        Ok(collected)
    }

    fn add(&mut self, report: TaskReport) -> Result<()> {
        match report {
            TaskReport::File { writer, file } => self.files.push((FileId { writer, number: file.number }, file)),
            TaskReport::Written { upserted, changes } => {
                self.upserted += upserted;
                self.changes += changes;
            }
            TaskReport::Deduplicated(files) => {
                for file in files {
                    let (rows, replaced) = self.locations.entry(file.file).or_default();
                    *rows += file.rows;
                    *replaced |= file.replaced()?;
                }
            }
            TaskReport::Keys(file) => self.key_files.push(file),
            TaskReport::FileChanged { number, deletion_vector } => self.changed_files.push((number, deletion_vector)),
            TaskReport::Probed { deleted, vector_file_bytes } => {
                self.probed_parts += 1;
                self.deleted += deleted;
                self.vector_file_bytes += vector_file_bytes;
            }
        }
        Ok(())
    }

    /// Checks that every change that was read was written once.
    fn check_changes(&self, read: u64) -> Result<()> {
        if self.changes == read {
            return Ok(());
        }
        Err(inconsistent().with_field("changes read", read).with_field("changes written", self.changes))
    }

    /// Checks that there is one location of each row of each file, and no other location: a task that ran twice may have left
    /// locations of both attempts.
    fn check_locations(&self) -> Result<()> {
        let is_complete = |(id, file): &(FileId, NewFile)| self.locations.get(id).is_some_and(|(rows, _)| *rows == file.rows);
        if self.files.iter().all(is_complete) && self.locations.len() == self.files.len() {
            return Ok(());
        }
        Err(inconsistent().with_field("files", self.files.len()).with_field("files with row locations", self.locations.len()))
    }

    fn new_files(self) -> impl Iterator<Item = NewFile> {
        self.files.into_iter().map(|(_, file)| file)
    }
}

fn inconsistent() -> Error {
    Error::new(Kind::Unavailable, "The results of the executors are inconsistent")
        .hint("an executor was probably lost during the load; run the command again")
}

/// Whether executors can do a load: mode `current` without soft deletes and without a change data feed.
pub(crate) fn can_distribute(load: &LoadContext) -> bool {
    let is_supported = load.layout.mode == TableMode::Current && load.layout.deletes == Deletes::Remove;
    is_supported && !load.design.purges_soft_deletes && !load.writes_change_feed()
}

/// Lets executors write the changes. Repeats the work if executors were lost.
pub(crate) async fn write(load: &LoadContext, executor: &dyn Executor) -> Result<FileChanges, WriteError> {
    let mut attempt = 1;
    loop {
        match upsert::run(load, &mut RemoteExecutor::new(load, executor)).await {
            Err(WriteError::Failed(error)) if error.kind() == Kind::Unavailable && attempt < ATTEMPTS => {
                tracing::warn!(table = %load.plan.table, %error, attempt, "The work of executors was lost; repeating it");
                load.uncommitted.remove().await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// Runs the tasks of one load in other processes.
struct RemoteExecutor<'a> {
    load: &'a LoadContext,
    executor: &'a dyn Executor,
    /// Removes the key files, even if the load commits.
    key_files: UncommittedFiles,
}

/// An increment whose rows and keys were written.
struct RemoteIncrement {
    written: FileChanges,
    keys: Vec<KeyFile>,
}

impl<'a> RemoteExecutor<'a> {
    fn new(load: &'a LoadContext, executor: &'a dyn Executor) -> Self {
        let key_files = UncommittedFiles::new(load.log.store(), load.log.folder.clone());
        Self { load, executor, key_files }
    }

    /// Runs tasks and takes over their files: they are removed if the load does not commit.
    async fn run(&self, input: TaskInput, tasks: Vec<Task>) -> Result<CollectedReports> {
        let reads_changes = matches!(input, TaskInput::Changes);
        let done = self.executor.run(TaskChain { input, tasks }).await?;
        let mut reports = CollectedReports::new(&done.batches)?;
        adopt(self.load, &mut reports);
        let key_files = self.key_files.registry();
        reports.key_files.iter().for_each(|file| _ = key_files.add(&file.name));
        if reads_changes {
            reports.check_changes(done.changes)?;
        }
        Ok(reports)
    }
}

#[async_trait]
impl UpsertExecutor for RemoteExecutor<'_> {
    type Increment = RemoteIncrement;

    /// Tasks write the changes; others get the row locations, shuffled by key, and find the replaced rows.
    async fn write_snapshot(&mut self) -> Result<WrittenSnapshot, WriteError> {
        let load = self.load;
        let tasks =
            vec![TaskSpec::Write(table_spec(load)?).task(Vec::new())?, TaskSpec::Dedup.task(vec![KEY_HASH.to_owned()])?];
        let mut reports = self.run(TaskInput::Changes, tasks).await?;
        reports.check_locations()?;
        check_files(load, &reports).await?;
        let mut replaced = RowsByFile::new();
        for (id, file) in &reports.files {
            if let Some((_, rows)) = reports.locations.remove(id).filter(|(_, rows)| !rows.is_empty()) {
                replaced.insert(file.number, rows);
            }
        }
        let upserted = reports.upserted;
        Ok(WrittenSnapshot { files: reports.new_files().collect(), upserted, replaced })
    }

    /// Tasks get the changes, shuffled by key, and write rows and keys to files.
    async fn write_increment(&mut self) -> Result<RemoteIncrement, WriteError> {
        let load = self.load;
        let tasks = vec![TaskSpec::Merge(table_spec(load)?).task(load.keys.clone())?];
        let mut reports = self.run(TaskInput::Changes, tasks).await?;
        let keys = std::mem::take(&mut reports.key_files);
        check_files(load, &reports).await?;
        let mut written = FileChanges { upserted: reports.upserted, ..FileChanges::keep_all(load.files().len()) };
        written.added.extend(reports.new_files());
        Ok(RemoteIncrement { written, keys })
    }

    /// Tasks get some of the existing files each, and read all key files.
    async fn update_files(&mut self, increment: RemoteIncrement) -> Result<FileChanges, WriteError> {
        let load = self.load;
        let RemoteIncrement { mut written, keys } = increment;
        if load.files().is_empty() || (keys.is_empty() && !load.design.rewrites) {
            return Ok(written);
        }
        let parts = describe_files(load, self.executor.parallelism())?;
        let expected = parts.len();
        let spec = ProbeSpec {
            table: table_spec(load)?,
            key_files: keys,
            rewrite_all: load.design.rewrites,
            rule: load.deletion_vector_rule(),
        };
        let tasks = vec![TaskSpec::Probe(spec).task(Vec::new())?];
        let mut reports = self.run(TaskInput::Batches(parts), tasks).await?;
        if reports.probed_parts != expected {
            let error = inconsistent().with_field("parts", expected).with_field("parts done", reports.probed_parts);
            return Err(error.into());
        }
        check_files(load, &reports).await?;
        for (number, deletion_vector) in std::mem::take(&mut reports.changed_files) {
            let known = load.files().get(number).zip(written.removed.get_mut(number));
            let (file, removed) = known.ok_or_else(|| Error::new(Kind::Bug, "A task changed a file that it was not given"))?;
            *removed = true;
            let update = deletion_vector.map(|deletion_vector| VectorUpdate { file: Arc::clone(file), deletion_vector });
            written.vector_updates.extend(update);
        }
        written.deleted = reports.deleted;
        written.vector_file_bytes = reports.vector_file_bytes;
        written.added.extend(reports.new_files());
        self.key_files.remove().await;
        Ok(written)
    }
}

fn table_spec(load: &LoadContext) -> Result<TableSpec> {
    let table = &load.plan.table;
    // The target is two folders above the table.
    let root = load.log.location.reveal().join("../../").context(Kind::Bug, "The URL of the target cannot be used")?;
    Ok(TableSpec {
        namespace: table.namespace.as_str().to_owned(),
        table: table.table.clone(),
        root,
        schema: LakeColumn::schema_string(&load.design.columns),
        keys: load.keys.clone(),
        target_file_bytes: load.options.target_file_bytes,
        compression_level: load.options.compression_level,
    })
}

/// Takes over the files of the tasks: they are removed if the load does not commit.
fn adopt(load: &LoadContext, reports: &mut CollectedReports) {
    let registry = load.uncommitted.registry();
    for (_, file) in &mut reports.files {
        file.number = registry.add(&file.name);
    }
    for (_, vector) in &reports.changed_files {
        if let Some(name) = vector.as_ref().and_then(file_of) {
            registry.add(&name);
        }
    }
}

/// Checks that all reported files are at the target: an executor may have written to another one.
async fn check_files(load: &LoadContext, reports: &CollectedReports) -> Result<()> {
    let files = reports.files.iter().map(|(_, file)| (file.name.clone(), Some(file.bytes)));
    let vectors = reports.changed_files.iter().filter_map(|(_, vector)| Some((file_of(vector.as_ref()?)?, None)));
    let files: BTreeMap<String, Option<u64>> = files.chain(vectors).collect();
    let store = load.log.store();
    let lookups = stream::iter(files).map(move |(name, bytes)| check_file(Arc::clone(&store), name, bytes));
    lookups.buffer_unordered(CONCURRENT_LOOKUPS).try_collect().await
}

/// Descriptions of the existing files, in at most `parts` batches with about the same size of files.
fn describe_files(load: &LoadContext, parts: usize) -> Result<Vec<RecordBatch>> {
    let keys = load.key_columns();
    let key = keys.first().ok_or_else(|| Error::new(Kind::Bug, "A table has no key"))?;
    let count = parts.clamp(1, load.files().len().max(1));
    let mut texts: Vec<Vec<String>> = vec![Vec::new(); count];
    let mut smallest: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|part| Reverse((0, part))).collect();
    let mut files: Vec<usize> = (0..load.files().len()).collect();
    files.sort_by_key(|number| Reverse(load.files()[*number].size));
    for number in files {
        let Some(Reverse((bytes, part))) = smallest.pop() else { continue };
        let file = &load.files()[number];
        let description =
            serde_json::to_string(&file.describe(number, key)).context(Kind::Bug, "A file cannot be described")?;
        texts[part].push(description);
        smallest.push(Reverse((bytes + file.size, part)));
    }
    texts.into_iter().map(batch_of).collect()
}

/// Checks that a file is at the target and has the reported size.
async fn check_file(store: Arc<dyn ObjectStore>, name: String, bytes: Option<u64>) -> Result<()> {
    let hint = "executors need the same endpoint and store options as this process; with several machines, the target must be an object store";
    let found = store.head(&Path::from(name.as_str())).await;
    let found = found.context(Kind::Target, "A file of an executor is not at the target");
    let found = found.map_err(|error| error.with_field("file", &name).hint(hint))?;
    match bytes {
        Some(bytes) if bytes != found.size => {
            Err(Error::new(Kind::Target, "The size of a file at the target differs from what the executor wrote")
                .with_field("file", name)
                .with_field("size", found.size)
                .with_field("written", bytes)
                .hint(hint))
        }
        _ => Ok(()),
    }
}
