//! Publishes versions of a Delta table as Iceberg snapshots.
//!
//! Each commit of daplake in the Delta log becomes one snapshot; the files of the manifests that it does not touch are reused. If the log
//! cannot be followed (entries are missing, another program made a commit, ids of columns change), one snapshot is made of the whole
//! table instead. A snapshot becomes visible by the metadata file that names it, which is created only if its version does not exist.

use std::collections::HashSet;

use deltalake::kernel::DeletionVectorDescriptor;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::bounds::Metrics;
use super::delta_commit::{DataFile, DeltaCommit, Description};
use super::manifest::{self, Content, Entry, Status};
use super::manifest_list::{self, Manifest, Origin};
use super::metadata_folder::{Current, MetadataFolder};
use super::partition::PartitionSpec;
use super::puffin::PuffinFile;
use super::schema::Schema;
use super::source::{DeltaTable, Source};
use super::table_metadata::{Changes, Snapshot, TableMetadata};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::delta::log::table_log::TableLog;

/// Maximum number of files in a manifest.
const MANIFEST_FILES: usize = 1000;
/// A manifest with fewer files is small.
const SMALL_MANIFEST: i64 = 250;
/// Number of small manifests from which a commit merges them.
const MERGE_AFTER: usize = 16;
/// Maximum number of versions that are published one by one.
const MAX_VERSIONS: u64 = 50;
/// Concurrent reads of deletion vectors.
const CONCURRENT_READS: usize = 8;
/// Attempts after conflicts with other runs.
const ATTEMPTS: usize = 5;

/// Removes the view of a table.
pub(crate) async fn withdraw(log: &TableLog) -> Result<()> {
    MetadataFolder::new(&Source::new(log)).remove_all().await.with_field("table", &log.table)
}

/// Publishes all commits of a table that its view does not show yet. Kind `Unsupported` if the table cannot have a view; then it has none.
pub(crate) async fn publish(log: &TableLog) -> Result<()> {
    let published = publish_from(&Source::new(log)).await.with_field("table", &log.table);
    if published.as_ref().is_err_and(|error| error.kind() == Kind::Unsupported) {
        withdraw(log).await?;
    }
    published
}

async fn publish_from(source: &Source<'_>) -> Result<()> {
    let folder = MetadataFolder::new(source);
    for _ in 0..ATTEMPTS {
        let Current { number, metadata, is_pointed_to } = folder.current().await?;
        let published = metadata.as_ref().and_then(|metadata| usable(metadata, folder.location()));
        let newest = match published {
            Some(published) => source.newest_version(published).await,
            None => None,
        };
        if newest.is_some() && newest == published {
            return if is_pointed_to { Ok(()) } else { folder.point_to(number).await };
        }
        let previous = metadata.as_ref().map(|metadata| (folder.file(number), metadata.last_updated()));
        let mut draft = Draft { folder: &folder, source, metadata: metadata.unwrap_or_else(|| new_metadata(&folder)) };
        let is_followed = match published.zip(newest) {
            Some((published, newest)) if newest - published <= MAX_VERSIONS => {
                match draft.follow(published + 1..=newest).await {
                    // Without its files, no older snapshot can be read.
                    Err(error) if error.kind() == Kind::NotFound => {
                        draft.forget();
                        false
                    }
                    followed => followed?,
                }
            }
            _ => false,
        };
        if !is_followed {
            let table = source.table().await?;
            draft.rebuild(&table).await?;
        }
        let mut metadata = draft.metadata;
        metadata.expire(0);
        let dropped = match previous {
            Some((file, updated)) => metadata.log_previous(&file, updated),
            None => Vec::new(),
        };
        if folder.commit(number + 1, &metadata).await? {
            folder.remove(dropped).await;
            return Ok(());
        }
    }
    Err(Error::new(Kind::Conflict, "Other runs kept changing the Iceberg metadata"))
}

/// The published version; `None` if the metadata cannot be continued: another program changed it, or the table was moved.
pub(super) fn usable(metadata: &TableMetadata, location: &str) -> Option<u64> {
    metadata.delta_version().filter(|_| metadata.location() == location)
}

fn new_metadata(folder: &MetadataFolder<'_>) -> TableMetadata {
    TableMetadata::new(folder.location(), &Uuid::new_v4().to_string())
}

/// Metadata that is being changed.
struct Draft<'a> {
    folder: &'a MetadataFolder<'a>,
    source: &'a Source<'a>,
    metadata: TableMetadata,
}

/// The files of a new snapshot.
struct NewSnapshot {
    origin: Origin,
    spec: PartitionSpec,
    schema: Schema,
    changes: Changes,
    data: Vec<Entry>,
    vectors: Vec<Entry>,
}

impl Draft<'_> {
    /// Begins again without snapshots and schemas. The table keeps its id.
    fn forget(&mut self) {
        self.metadata = TableMetadata::new(self.folder.location(), self.metadata.uuid()).after(&self.metadata);
    }

    /// Adds a snapshot for each of these versions. Returns `false` if they cannot be followed; the metadata may have changed then.
    async fn follow(&mut self, versions: std::ops::RangeInclusive<u64>) -> Result<bool> {
        for version in versions {
            let Some(entry) = self.source.entry(version).await? else { return Ok(false) };
            let commit = DeltaCommit::parse(version, &entry)?;
            if !commit.is_ours {
                return Ok(false);
            }
            if let Some(description) = &commit.description
                && !self.describe(description, false)?
            {
                return Ok(false);
            }
            if !self.apply(&commit).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sets schema and description. If older snapshots could not be read with them, they are forgotten, or it returns `false`.
    fn describe(&mut self, description: &Description, may_forget: bool) -> Result<bool> {
        let (mapping, schema) = (self.metadata.name_mapping(), self.metadata.schema()?);
        let evolved = Schema::evolve(&schema, &mapping, &description.schema_string, &description.key())?;
        let spec = spec_of(description, &evolved.schema);
        if evolved.breaks_history || !self.metadata.has_spec(&spec) {
            if !may_forget {
                return Ok(false);
            }
            self.metadata.forget_history();
            self.metadata.set_spec(&spec);
        }
        self.metadata.set_schema(&evolved.schema);
        self.metadata.set_description(description.description.as_deref());
        Ok(true)
    }

    fn begin(&self) -> Result<NewSnapshot> {
        let schema = self.metadata.schema()?;
        let spec = self.metadata.spec(&schema);
        let origin = Origin {
            snapshot_id: (Uuid::new_v4().as_u64_pair().0 >> 1) as i64,
            sequence_number: self.metadata.next_sequence_number(),
            first_row_id: self.metadata.next_row_id(),
            spec_id: spec.id,
            is_partitioned: spec.is_partitioned(),
        };
        let (data, vectors) = (Vec::new(), Vec::new());
        Ok(NewSnapshot { origin, spec, schema, changes: Changes::default(), data, vectors })
    }

    /// Adds a snapshot for a commit. Returns `false` if the current snapshot does not have the files that the commit removes.
    async fn apply(&mut self, commit: &DeltaCommit) -> Result<bool> {
        let mut new = self.begin()?;
        let mut manifests = match self.metadata.manifest_list() {
            Some(list) => manifest_list::decode(&self.folder.read(list).await?)?,
            None => Vec::new(),
        };
        manifests.retain(|manifest| manifest.live_files() > 0);

        let readded: HashSet<&str> = commit.added.iter().map(|file| file.path.as_str()).collect();
        let mut gone = Wanted::default();
        let mut gone_vectors = Wanted::default();
        let mut removed_paths = HashSet::new();
        for file in &commit.removed {
            let partition = file.partition.as_ref().map(|value| new.spec.parse(value.as_deref()));
            let location = self.folder.location_of(&file.path);
            removed_paths.insert(file.path.as_str());
            if file.deletion_vector.is_some() {
                gone_vectors.add(location.clone(), partition);
            }
            if !readded.contains(file.path.as_str()) {
                gone.add(location, partition);
            }
        }
        let is_new = |file: &&DataFile| !removed_paths.contains(file.path.as_str());
        for file in commit.added.iter().filter(is_new) {
            new.add_data(self.folder, file)?;
        }
        self.add_vectors(&mut new, &commit.added).await?;

        for (content, wanted) in [(Content::Data, gone), (Content::Deletes, gone_vectors)] {
            if !self.take_out(&mut manifests, content, wanted, &mut new).await? {
                return Ok(false);
            }
        }
        for content in [Content::Data, Content::Deletes] {
            self.merge_small(&mut manifests, content, &mut new).await?;
        }
        let operation = operation_of(commit, &new.changes);
        self.finish(new, manifests, commit.version, commit.timestamp, operation).await?;
        Ok(true)
    }

    /// Takes the manifests out of the list that have wanted files. The new snapshot keeps their other files, and has the
    /// wanted ones as deleted entries. Returns `false` if a file was not found.
    async fn take_out(
        &self,
        manifests: &mut Vec<Manifest>,
        content: Content,
        mut wanted: Wanted,
        new: &mut NewSnapshot,
    ) -> Result<bool> {
        let mut index = 0;
        while !wanted.files.is_empty() && index < manifests.len() {
            let manifest = &manifests[index];
            if manifest.content != content || !wanted.may_be_in(manifest) {
                index += 1;
                continue;
            }
            let mut entries = manifest::decode(&self.folder.read(&manifest.path).await?)?;
            entries.retain(Entry::is_live);
            if !entries.iter().any(|entry| wanted.files.contains(entry.data_file())) {
                index += 1;
                continue;
            }
            for entry in entries {
                if wanted.files.remove(entry.data_file()) {
                    new.delete(entry);
                } else {
                    new.keep(entry);
                }
            }
            manifests.remove(index);
        }
        Ok(wanted.files.is_empty())
    }

    /// Moves the files of small manifests to the new snapshot's own manifest, if there are many of them.
    async fn merge_small(&self, manifests: &mut Vec<Manifest>, content: Content, new: &mut NewSnapshot) -> Result<()> {
        let is_small = |manifest: &Manifest| manifest.content == content && manifest.live_files() < SMALL_MANIFEST;
        if manifests.iter().filter(|manifest| is_small(manifest)).count() < MERGE_AFTER {
            return Ok(());
        }
        let (small, others): (Vec<_>, Vec<_>) = std::mem::take(manifests).into_iter().partition(is_small);
        *manifests = others;
        for manifest in small {
            let entries = manifest::decode(&self.folder.read(&manifest.path).await?)?;
            entries.into_iter().filter(Entry::is_live).for_each(|entry| new.keep(entry));
        }
        Ok(())
    }

    /// Replaces the snapshot by one of the whole table. Older snapshots stay if they can still be read.
    async fn rebuild(&mut self, table: &DeltaTable) -> Result<()> {
        let continues = usable(&self.metadata, self.folder.location()).is_some_and(|published| published <= table.version);
        if !continues {
            self.forget();
        }
        self.describe(&table.description, true)?;
        let mut new = self.begin()?;
        new.changes.is_whole = true;
        for file in &table.files {
            new.add_data(self.folder, file)?;
        }
        self.add_vectors(&mut new, &table.files).await?;
        let operation = if self.metadata.snapshot_id().is_none() { "append" } else { "overwrite" };
        self.finish(new, Vec::new(), table.version, table.timestamp, operation).await
    }

    /// Writes the deletion vectors of these files to a Puffin file.
    async fn add_vectors(&self, new: &mut NewSnapshot, files: &[DataFile]) -> Result<()> {
        let mut puffin = PuffinFile::new();
        let name = format!("{}.puffin", Uuid::new_v4());
        let with_vector = files.iter().enumerate();
        let with_vector: Vec<_> =
            with_vector.filter_map(|(place, file)| Some((place, file.deletion_vector.clone()?))).collect();
        let read = |(place, vector): (usize, DeletionVectorDescriptor)| async move {
            let encoded = self.source.vector(&vector).await?;
            Ok::<_, Error>((place, vector, encoded))
        };
        let mut vectors = futures::stream::iter(with_vector).map(read).buffered(CONCURRENT_READS);
        while let Some((place, vector, encoded)) = vectors.try_next().await? {
            let file = &files[place];
            let rows = vector.cardinality;
            let reference = puffin.push(self.folder.location_of(&file.path), rows, &encoded);
            new.changes.added_vectors += 1;
            new.changes.added_deleted_rows += rows;
            new.vectors.push(Entry {
                status: Status::Added,
                snapshot_id: new.origin.snapshot_id,
                sequence_number: new.origin.sequence_number,
                path: self.folder.metadata_file(&name),
                partition: new.spec.parse(file.partition.as_deref()),
                rows,
                size: 0,
                value_counts: Vec::new(),
                null_counts: Vec::new(),
                lower: Vec::new(),
                upper: Vec::new(),
                first_row_id: None,
                vector: Some(reference),
            });
        }
        if puffin.is_empty() {
            return Ok(());
        }
        let bytes = puffin.finish();
        for entry in new.vectors.iter_mut().filter(|entry| entry.status == Status::Added) {
            entry.size = bytes.len() as i64;
        }
        self.folder.write(&name, bytes).await
    }

    /// Writes manifests and manifest list, and adds the snapshot to the metadata.
    async fn finish(
        &mut self,
        new: NewSnapshot,
        mut manifests: Vec<Manifest>,
        version: u64,
        timestamp: i64,
        operation: &'static str,
    ) -> Result<()> {
        let schema = self.metadata.schema_json();
        for (content, entries) in [(Content::Data, &new.data), (Content::Deletes, &new.vectors)] {
            for chunk in entries.chunks(MANIFEST_FILES) {
                let bytes = manifest::encode(content, &new.spec, schema, chunk)?;
                let name = format!("{}-m0.avro", Uuid::new_v4());
                let path = self.folder.metadata_file(&name);
                manifests.push(Manifest::new(path, bytes.len(), content, &new.origin, chunk));
                self.folder.write(&name, bytes).await?;
            }
        }
        let list = manifest_list::encode(&new.origin, self.metadata.snapshot_id(), &manifests)?;
        let name = format!("snap-{}-1-{}.avro", new.origin.snapshot_id, Uuid::new_v4());
        self.folder.write(&name, list).await?;
        self.metadata.add_snapshot(&Snapshot {
            id: new.origin.snapshot_id,
            version,
            timestamp,
            manifest_list: self.folder.metadata_file(&name),
            operation,
            changes: new.changes,
        });
        Ok(())
    }
}

impl NewSnapshot {
    /// Adds a data file. Kind `Unsupported` if the log does not say how many rows it has.
    fn add_data(&mut self, folder: &MetadataFolder<'_>, file: &DataFile) -> Result<()> {
        let metrics = Metrics::new(&self.schema.fields, file.stats.as_deref());
        let rows = metrics.rows.ok_or_else(|| {
            Error::new(Kind::Unsupported, "The log does not say how many rows a data file has")
                .with_field("file", &file.path)
                .hint("rewrite the file with `daplake optimize`")
        })?;
        let first_row_id = self.origin.first_row_id + self.changes.added_rows;
        self.changes.added_files += 1;
        self.changes.added_rows += rows;
        self.changes.added_bytes += file.size;
        self.data.push(Entry {
            status: Status::Added,
            snapshot_id: self.origin.snapshot_id,
            sequence_number: self.origin.sequence_number,
            path: folder.location_of(&file.path),
            partition: self.spec.parse(file.partition.as_deref()),
            rows,
            size: file.size,
            value_counts: metrics.value_counts,
            null_counts: metrics.null_counts,
            lower: metrics.lower,
            upper: metrics.upper,
            first_row_id: Some(first_row_id),
            vector: None,
        });
        Ok(())
    }

    /// Adds a file that stays in the table.
    fn keep(&mut self, entry: Entry) {
        let kept = Entry { status: Status::Existing, ..entry };
        if kept.vector.is_some() { self.vectors.push(kept) } else { self.data.push(kept) }
    }

    /// Adds a file as deleted by this snapshot.
    fn delete(&mut self, entry: Entry) {
        let deleted = Entry { status: Status::Deleted, snapshot_id: self.origin.snapshot_id, ..entry };
        if deleted.vector.is_some() {
            self.changes.removed_vectors += 1;
            self.changes.removed_deleted_rows += deleted.rows;
            self.vectors.push(deleted);
        } else {
            self.changes.removed_files += 1;
            self.changes.removed_rows += deleted.rows;
            self.changes.removed_bytes += deleted.size;
            self.data.push(deleted);
        }
    }
}

/// Files to be found in manifests.
#[derive(Default)]
struct Wanted {
    /// Locations of data files.
    files: HashSet<String>,
    /// Their partitions, as far as they are known.
    partitions: HashSet<Option<i32>>,
    /// Whether a partition is not known.
    is_anywhere: bool,
}

impl Wanted {
    fn add(&mut self, file: String, partition: Option<Option<i32>>) {
        self.files.insert(file);
        match partition {
            Some(partition) => _ = self.partitions.insert(partition),
            None => self.is_anywhere = true,
        }
    }

    fn may_be_in(&self, manifest: &Manifest) -> bool {
        self.is_anywhere || self.partitions.iter().any(|partition| manifest.may_contain(*partition))
    }
}

fn spec_of(description: &Description, schema: &Schema) -> PartitionSpec {
    let column = description.partition_columns.first();
    PartitionSpec::new(column.and_then(|name| schema.fields.iter().find(|field| field.name == *name)))
}

fn operation_of(commit: &DeltaCommit, changes: &Changes) -> &'static str {
    let removes = changes.removed_files > 0 || changes.added_vectors > 0 || changes.removed_vectors > 0;
    match (changes.added_files > 0, removes) {
        (true, true) if !commit.changes_rows => "replace",
        (true, true) => "overwrite",
        (false, true) => "delete",
        _ => "append",
    }
}
