//! What alerts must not forget, on disk: how far the journal has been read, the incidents,
//! and the messages that are still to be delivered.
//!
//! It keeps an image of what is in memory, a transaction at a time; it decides nothing.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Builder, Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    backends::FileBackend,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    group::{Incident, Key, Member},
    queue::{Entry, Number},
};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const INCIDENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("incidents");
const MEMBERS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("members");
const ENTRIES: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("messages");
const BODIES: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("bodies");

/// In [`META`]: the number of the last event that was taken in.
const CURSOR: &str = "cursor";
/// In [`META`]: the layout of the tables.
const VERSION: (&str, u64) = ("version", 1);

/// What is kept in memory of the file; it is small, and read once.
const CACHE: usize = 4 << 20;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool {0} is in use by a running agent")]
    InUse(PathBuf),
    /// It was written by a later version.
    #[error("the spool {0} is of a later version of pipestall")]
    Later(PathBuf),
    /// What is in it cannot be understood.
    #[error("the spool {0} is damaged: {1}")]
    Damaged(PathBuf, String),
    /// The file system does not let it be used.
    #[error("cannot use the spool {0}: {1}")]
    Failed(PathBuf, String),
}

/// A change to what is kept; without a value, it is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// How far the journal has been taken in.
    Cursor(u64),
    /// An incident of a webhook, without its members.
    Incident(String, String, Option<Vec<u8>>),
    /// A member of an incident of a webhook.
    Member(String, String, String, Option<Vec<u8>>),
    /// A message without its body.
    Entry(Number, Option<Vec<u8>>),
    /// A message's body.
    Body(Number, Option<Arc<[u8]>>),
}

/// What an earlier run has left.
#[derive(Debug, Default)]
pub struct Left {
    /// How far the journal was taken in; none if there was no earlier run.
    pub cursor: Option<u64>,
    /// The incidents of each webhook.
    pub incidents: BTreeMap<String, BTreeMap<Key, Incident>>,
    /// The messages in the order of their numbers.
    pub entries: Vec<Entry>,
}

/// The open spool.
#[derive(Debug)]
pub struct Spool {
    database: Database,
    path: PathBuf,
}

/// Where the spool is in a state directory.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join("spool").join("alerts.redb")
}

impl Spool {
    /// Opens or creates the spool of a state directory.
    ///
    /// # Errors
    /// It is in use, damaged or of a later version, or the file system fails.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let path = path(dir);
        let failed = |error: &dyn std::fmt::Display| SpoolError::Failed(path.clone(), error.to_string());
        let parent = path.parent().unwrap_or(dir);
        // It holds command lines: nobody else's business.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| failed(&error))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let database = FileBackend::new(file)
            .and_then(|backend| Builder::new().set_cache_size(CACHE).create_with_backend(backend))
            .map_err(|error| Fault::from(error).of(&path))?;
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| failed(&error))?;
        let spool = Self { database, path };
        spool.prepare()?;
        Ok(spool)
    }

    /// Puts a damaged spool aside and opens a new one; returns where the old one is.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn replace(dir: &Path) -> Result<(Self, PathBuf), SpoolError> {
        let damaged = path(dir);
        let aside = damaged.with_extension("redb.damaged");
        fs::rename(&damaged, &aside)
            .map_err(|error| SpoolError::Failed(damaged.clone(), error.to_string()))?;
        Ok((Self::open(dir)?, aside))
    }

    fn prepare(&self) -> Result<(), SpoolError> {
        let version = self.read(|reading| match reading.open_table(META) {
            Ok(meta) => Ok(meta.get(VERSION.0)?.map(|value| value.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        match version {
            Some(version) if version == VERSION.1 => Ok(()),
            Some(_) => Err(SpoolError::Later(self.path.clone())),
            None => self.write(|writing| {
                writing.open_table(META)?.insert(VERSION.0, VERSION.1)?;
                writing.open_table(INCIDENTS)?;
                writing.open_table(MEMBERS)?;
                writing.open_table(ENTRIES)?;
                writing.open_table(BODIES)?;
                Ok(())
            }),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn load(&self) -> Result<Left, SpoolError> {
        let mut left = Left::default();
        self.read(|reading| {
            left.cursor = reading.open_table(META)?.get(CURSOR)?.map(|value| value.value());
            for row in reading.open_table(INCIDENTS)?.iter()? {
                let (place, value) = row?;
                let (webhook, key) = place.value();
                let key: Key = decode(key.as_bytes())?;
                let incidents = left.incidents.entry(webhook.to_owned()).or_default();
                incidents.insert(key, decode(value.value())?);
            }
            for row in reading.open_table(MEMBERS)?.iter()? {
                let (place, value) = row?;
                let (webhook, key, subject) = place.value();
                let key: Key = decode(key.as_bytes())?;
                let member: Member = decode(value.value())?;
                if let Some(incident) = left.incidents.get_mut(webhook).and_then(|all| all.get_mut(&key)) {
                    incident.members.insert(subject.to_owned(), member);
                }
            }
            let bodies = reading.open_table(BODIES)?;
            for row in reading.open_table(ENTRIES)?.iter()? {
                let (number, value) = row?;
                let mut entry: Entry = decode(value.value())?;
                if let Some(body) = bodies.get(number.value())? {
                    entry.body = body.value().into();
                    left.entries.push(entry);
                }
            }
            Ok(())
        })?;
        Ok(left)
    }

    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// The file system is full or fails; after that it has to be opened anew.
    pub fn commit(&self, changes: &[Change]) -> Result<(), SpoolError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|writing| apply(writing, changes))
    }

    /// Replaces all of it.
    ///
    /// # Errors
    /// As for [`Self::commit`].
    pub fn rewrite(&self, image: &[Change]) -> Result<(), SpoolError> {
        self.write(|writing| {
            writing.open_table(INCIDENTS)?.retain(|_, _| false)?;
            writing.open_table(MEMBERS)?.retain(|_, _| false)?;
            writing.open_table(ENTRIES)?.retain(|_, _| false)?;
            writing.open_table(BODIES)?.retain(|_, _| false)?;
            apply(writing, image)
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, SpoolError> {
        let reading = self.database.begin_read().map_err(Fault::from);
        reading
            .and_then(|reading| read(&reading))
            .map_err(|fault| fault.of(&self.path))
    }

    fn write(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), Fault>,
    ) -> Result<(), SpoolError> {
        let done = (|| {
            let writing = self.database.begin_write()?;
            write(&writing)?;
            writing.commit()?;
            Ok(())
        })();
        done.map_err(|fault: Fault| fault.of(&self.path))
    }
}

fn apply(writing: &redb::WriteTransaction, changes: &[Change]) -> Result<(), Fault> {
    let mut meta = writing.open_table(META)?;
    let mut incidents = writing.open_table(INCIDENTS)?;
    let mut members = writing.open_table(MEMBERS)?;
    let mut entries = writing.open_table(ENTRIES)?;
    let mut bodies = writing.open_table(BODIES)?;
    for change in changes {
        match change {
            Change::Cursor(seq) => drop(meta.insert(CURSOR, seq)?),
            Change::Incident(webhook, key, value) => {
                let place = (webhook.as_str(), key.as_str());
                match value {
                    Some(value) => drop(incidents.insert(place, value.as_slice())?),
                    None => drop(incidents.remove(place)?),
                }
            }
            Change::Member(webhook, key, subject, value) => {
                let place = (webhook.as_str(), key.as_str(), subject.as_str());
                match value {
                    Some(value) => drop(members.insert(place, value.as_slice())?),
                    None => drop(members.remove(place)?),
                }
            }
            Change::Entry(number, value) => match value {
                Some(value) => drop(entries.insert(number, value.as_slice())?),
                None => drop(entries.remove(number)?),
            },
            Change::Body(number, value) => match value {
                Some(value) => drop(bodies.insert(number, &**value)?),
                None => drop(bodies.remove(number)?),
            },
        }
    }
    Ok(())
}

/// What goes wrong inside a transaction.
enum Fault {
    Redb(redb::Error),
    Decode(serde_json::Error),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

impl Fault {
    fn of(self, path: &Path) -> SpoolError {
        let path = path.to_owned();
        match self {
            Self::Redb(redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch) => {
                SpoolError::InUse(path)
            }
            Self::Redb(redb::Error::UpgradeRequired(_)) => SpoolError::Later(path),
            Self::Redb(redb::Error::Corrupted(why)) => SpoolError::Damaged(path, why),
            Self::Redb(redb::Error::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                SpoolError::Damaged(path, error.to_string())
            }
            Self::Redb(error) => SpoolError::Failed(path, error.to_string()),
            Self::Decode(error) => SpoolError::Damaged(path, error.to_string()),
        }
    }
}

/// A value as the tables keep it.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Maps with keys that are no strings are what cannot be written; there is none.
    serde_json::to_vec(value).unwrap_or_default()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(Fault::Decode)
}

#[cfg(test)]
mod tests;
