//! The registry of one process in one file (redb). A write is on the disk
//! before anybody learns of it, so a process killed at any moment loses nothing
//! that it was told is done.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::config::OpenError;
use crate::engine::Engine;
use crate::key::{Key, Prefix};
use crate::local::{Journal, Local, local, store_by_local};
use crate::store::{
    Cause, Change, ChangeStream, Entry, Lease, LeaseId, Revision, Snapshot, StoreError, WatchError,
};
use crate::transaction::{Committed, Transaction};

/// Creation revision, revision of the last write, version, lease (0 for none), value.
type Row<'a> = (u64, u64, u64, u64, &'a [u8]);

const ENTRIES: TableDefinition<&str, Row> = TableDefinition::new("entries");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_FORMAT: &str = "format";
const META_REVISION: &str = "revision";
const FORMAT: u64 = 1;

/// Memory for pages of the file; the entries themselves are in memory anyway.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A registry in one file, which no second process can open meanwhile.
///
/// Leases end with the process that held them: nobody else can have one, so
/// opening the file deletes the keys of the leases found in it. Dropping the
/// registry waits for the write that is under way and gives the file back.
#[derive(Debug)]
pub struct EmbeddedStore {
    local: Local,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// If another process has it, if it cannot be read, or if it is no registry.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let (opened, answer) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || own(&path, opened))
            .map_err(OpenError::Thread)?;
        let local = answer.await.map_err(|_| {
            OpenError::Thread(std::io::Error::other("the registry's thread ended"))
        })??;
        Ok(Self { local, thread: Some(thread) })
    }

    /// Forgets the history up to a revision: who watches from there must list.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if its thread ended.
    pub async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.local.compact(up_to).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.local = Local::closed();
        if let Some(thread) = self.thread.take() {
            // It ends when its last handle is gone, which this one was.
            drop(thread.join());
        }
    }
}

store_by_local!(EmbeddedStore);

/// The thread: opens the file, then serves the handle until it is dropped. Its
/// runtime is its own because the writes block it.
fn own(path: &Path, opened: oneshot::Sender<Result<Local, OpenError>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(OpenError::Thread(error)))),
    };
    match restore(path) {
        Ok((engine, journal)) => {
            let (local, owner) = local(engine, journal);
            if opened.send(Ok(local)).is_ok() {
                runtime.block_on(owner.run());
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    }
}

fn restore(path: &Path) -> Result<(Engine, RedbJournal), OpenError> {
    let database =
        Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            other => unusable(path, other),
        })?;
    let format = prepare_tables(&database).map_err(|error| unusable(path, error))?;
    if format != FORMAT {
        return Err(OpenError::Format { path: path.to_owned(), found: format, known: FORMAT });
    }
    let (revision, entries) = read_all(&database).map_err(|error| unusable(path, error))?;
    let mut journal = RedbJournal { database };
    let (leased, entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.lease.is_some());
    let mut now = revision;
    if !leased.is_empty() {
        now = Revision(revision.0 + 1);
        let ended: Vec<Change> = leased
            .into_iter()
            .map(|entry| Change::Deleted { key: entry.key, revision: now })
            .collect();
        journal.append(now, &ended).map_err(|error| unusable(path, error))?;
    }
    Ok((Engine::restored(now, entries), journal))
}

fn unusable(path: &Path, error: impl Into<Cause>) -> OpenError {
    OpenError::File { path: path.to_owned(), source: error.into() }
}

/// Makes the tables of a new file and says which format an old one has.
fn prepare_tables(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let format = {
        let mut meta = write.open_table(META)?;
        let found = meta.get(META_FORMAT)?.map(|format| format.value());
        if found.is_none() {
            meta.insert(META_FORMAT, FORMAT)?;
        }
        found.unwrap_or(FORMAT)
    };
    if format == FORMAT {
        write.open_table(ENTRIES)?;
        write.commit()?;
    } else {
        write.abort()?;
    }
    Ok(format)
}

fn read_all(database: &Database) -> Result<(Revision, Vec<Entry>), Cause> {
    let read = database.begin_read()?;
    let revision = read.open_table(META)?.get(META_REVISION)?.map_or(0, |found| found.value());
    let mut entries = Vec::new();
    for row in read.open_table(ENTRIES)?.iter()? {
        let (key, row) = row?;
        let (created, modified, version, lease, value) = row.value();
        entries.push(Entry {
            key: Key::new(key.value())?,
            value: value.to_vec().into(),
            create_revision: Revision(created),
            mod_revision: Revision(modified),
            version,
            lease: (lease != 0).then_some(LeaseId(lease)),
        });
    }
    Ok((Revision(revision), entries))
}

struct RedbJournal {
    database: Database,
}

impl Journal for RedbJournal {
    fn append(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError> {
        write(&self.database, revision, changes).map_err(|error| StoreError::Failed(error.into()))
    }
}

/// Writes one revision in one transaction of the file and waits for the disk.
fn write(database: &Database, revision: Revision, changes: &[Change]) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut entries = write.open_table(ENTRIES)?;
        for change in changes {
            match change {
                Change::Put(entry) => {
                    let row = (
                        entry.create_revision.0,
                        entry.mod_revision.0,
                        entry.version,
                        entry.lease.map_or(0, |lease| lease.0),
                        &*entry.value,
                    );
                    entries.insert(entry.key.as_str(), row)?;
                }
                Change::Deleted { key, .. } => drop(entries.remove(key.as_str())?),
            }
        }
        write.open_table(META)?.insert(META_REVISION, revision.0)?;
    }
    write.commit()?;
    Ok(())
}
