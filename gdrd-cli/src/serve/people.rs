//! Who is known: the database, and the same embeddings in memory, where they are searched.
//!
//! A change goes into the database first, then into memory, and is answered after that; whoever changes holds the database all the while,
//! so that both change in the same order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gdrd_core::error::{Error, Result};
use gdrd_student::{Embedding, FaceEncoder, Gallery};
use uuid::Uuid;

use super::refusal::Refusal;
use super::store::{Erased, Example, New, Store, Which};

type Answer<T> = std::result::Result<T, Refusal>;

/// A collection in memory. The gallery knows subjects by their numbers, so that another name changes nothing in it.
struct Known {
    gallery: Gallery,
    names: HashMap<i64, String>,
    threshold: Option<f64>,
}

/// All collections.
pub(super) struct People {
    encoder: Arc<FaceEncoder>,
    store: Mutex<Store>,
    known: RwLock<HashMap<i64, Known>>,
    unreached: AtomicBool,
}

/// A subject whom a face looks like.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) subject: i64,
    pub(super) name: String,
    pub(super) similarity: f32,
}

impl People {
    /// All people of a database.
    pub(super) fn load(store: Store, encoder: Arc<FaceEncoder>) -> Result<Self> {
        let mut known = HashMap::new();
        for collection in store.collections()? {
            known.insert(collection, Known::read(&store, &encoder, collection)?);
        }
        let unreached = AtomicBool::new(store.unreached());
        Ok(Self { encoder, store: Mutex::new(store), known: RwLock::new(known), unreached })
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<i64, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<i64, Known>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether people who were deleted are in a backup that could not be reached.
    pub(super) fn unreached(&self) -> bool {
        self.unreached.load(Ordering::Relaxed)
    }

    fn with<T>(&self, collection: i64, change: impl FnOnce(&mut Known) -> Result<T>) -> Answer<T> {
        match self.write().get_mut(&collection) {
            Some(known) => Ok(change(known)?),
            None => Err(Refusal::unknown_key()),
        }
    }

    /// Subjects and faces of all collections.
    pub(super) fn count(&self) -> (usize, usize) {
        let known = self.read();
        known.values().fold((0, 0), |(subjects, faces), one| (subjects + one.names.len(), faces + one.gallery.len()))
    }

    /// The `most` subjects whom a face looks most like; with the collection's threshold only those that reach it, unless `all`.
    pub(super) fn search(&self, collection: i64, face: &Embedding, most: usize, all: bool) -> Answer<Vec<Named>> {
        let known = self.read();
        let Some(known) = known.get(&collection) else { return Err(Refusal::unknown_key()) };
        let least = known.threshold.filter(|_| !all);
        let found = known.gallery.search(face, most)?.into_iter();
        let named = found.filter_map(|found| {
            let subject = found.person.parse().ok()?;
            let name = known.names.get(&subject)?.clone();
            Some(Named { subject, name, similarity: found.similarity })
        });
        Ok(named.filter(|one| least.is_none_or(|least| f64::from(one.similarity) >= least)).collect())
    }

    pub(super) fn threshold(&self, collection: i64) -> Option<f64> {
        self.read().get(&collection).and_then(|known| known.threshold)
    }

    pub(super) fn set_threshold(&self, collection: i64, threshold: Option<f64>) -> Answer<()> {
        let mut store = self.store();
        store.set_threshold(collection, threshold)?;
        self.with(collection, |known| {
            known.threshold = threshold;
            Ok(())
        })
    }

    pub(super) fn add_subject(&self, collection: i64, name: &str) -> Answer<()> {
        let mut store = self.store();
        if store.subject(collection, name)?.is_some() {
            return Err(Refusal::subject_exists());
        }
        let subject = store.add_subject(collection, name)?;
        self.with(collection, |known| {
            known.names.insert(subject, name.to_string());
            Ok(())
        })
    }

    /// Gives a subject another name; if somebody else has it, they are one from now on. Whether anything changed.
    pub(super) fn rename(&self, collection: i64, old: &str, new: &str) -> Answer<bool> {
        let mut store = self.store();
        if old == new {
            return Ok(false);
        }
        let from = store.subject(collection, old)?.ok_or_else(|| Refusal::no_subject(old))?;
        match store.subject(collection, new)? {
            Some(into) if into != from => {
                store.merge(from, into)?;
                let examples = store.examples(collection, Some(into))?;
                self.with(collection, |known| {
                    known.forget(from);
                    known.replace(&self.encoder, into, &examples)
                })?;
            }
            _ => {
                store.rename(from, new)?;
                self.with(collection, |known| {
                    known.names.insert(from, new.to_string());
                    Ok(())
                })?;
            }
        }
        Ok(true)
    }

    pub(super) fn add_example(&self, collection: i64, name: &str, new: &New) -> Answer<Uuid> {
        let mut store = self.store();
        let example = store.add_example(collection, name, new)?;
        self.with(collection, |known| {
            known.names.entry(example.subject).or_insert_with(|| name.to_string());
            known.enrol(&self.encoder, &example)
        })?;
        Ok(example.id)
    }

    /// Deletes from the database. If that fails, memory is what the database still has.
    fn erase(&self, store: &mut Store, collection: i64, which: Which) -> Answer<Erased> {
        let erased = store.erase(collection, which);
        self.unreached.store(store.unreached(), Ordering::Relaxed);
        if erased.is_err()
            && let Ok(known) = Known::read(store, &self.encoder, collection)
        {
            self.write().insert(collection, known);
        }
        Ok(erased?)
    }

    /// Deletes a subject with all faces; its name as it was written, and how many faces it had.
    pub(super) fn delete_subject(&self, collection: i64, name: &str) -> Answer<(String, usize)> {
        let mut store = self.store();
        let subject = store.subject(collection, name)?.ok_or_else(|| Refusal::no_subject(name))?;
        // Nobody is to find the person while the file is written anew.
        let name = self.with(collection, |known| Ok(known.forget(subject)))?.unwrap_or_else(|| name.to_string());
        let erased = self.erase(&mut store, collection, Which::Subject(subject))?;
        Ok((name, erased.examples.len()))
    }

    /// Deletes everybody; how many subjects and faces those were.
    pub(super) fn delete_all(&self, collection: i64) -> Answer<(usize, usize)> {
        let mut store = self.store();
        self.with(collection, |known| {
            known.gallery = Gallery::new(&self.encoder);
            known.names.clear();
            Ok(())
        })?;
        let erased = self.erase(&mut store, collection, Which::All)?;
        Ok((erased.subjects.len(), erased.examples.len()))
    }

    /// Deletes faces; those that there were, with the names of their subjects, who stay.
    pub(super) fn delete_examples(&self, collection: i64, ids: &[Uuid]) -> Answer<Vec<(Uuid, String)>> {
        let mut store = self.store();
        let erased = self.erase(&mut store, collection, Which::Examples(ids))?;
        let mut subjects: Vec<i64> = erased.examples.iter().map(|(_, subject, _)| *subject).collect();
        subjects.sort_unstable();
        subjects.dedup();
        for subject in subjects {
            let examples = store.examples(collection, Some(subject))?;
            self.with(collection, |known| known.replace(&self.encoder, subject, &examples))?;
        }
        Ok(erased.examples.into_iter().map(|(id, _, name)| (id, name)).collect())
    }

    /// A face that is known, with the name of its subject.
    pub(super) fn example(&self, collection: i64, id: Uuid) -> Answer<(Embedding, String)> {
        let found = self.store().example(collection, id)?.ok_or_else(|| Refusal::no_example(&id.to_string()))?;
        let name = self.read().get(&collection).and_then(|known| known.names.get(&found.subject).cloned());
        Ok((self.encoder.embedding(&found.values, found.pixels)?, name.unwrap_or_default()))
    }

    /// The face of a subject that another face looks most like.
    pub(super) fn nearest(&self, collection: i64, subject: i64, face: &Embedding) -> Answer<Option<Uuid>> {
        let examples = self.store().examples(collection, Some(subject))?;
        let mut best = None;
        for example in examples {
            let similarity = self.encoder.embedding(&example.values, example.pixels)?.similarity(face)?;
            if best.is_none_or(|(known, _)| similarity > known) {
                best = Some((similarity, example.id));
            }
        }
        Ok(best.map(|(_, id)| id))
    }
}

impl Known {
    fn read(store: &Store, encoder: &FaceEncoder, collection: i64) -> Result<Self> {
        let mut known = Self {
            gallery: Gallery::new(encoder),
            names: store.subjects(collection)?.into_iter().collect(),
            threshold: store.threshold(collection)?,
        };
        for example in store.examples(collection, None)? {
            known.enrol(encoder, &example).map_err(|error| known.damaged(store, &example, &error))?;
        }
        Ok(known)
    }

    /// What is said of a face of the database that is no embedding of the student.
    fn damaged(&self, store: &Store, example: &Example, error: &Error) -> Error {
        let subject = self.names.get(&example.subject).map_or("", String::as_str);
        Error::data(format!(
            "`{}`: a face of subject `{subject}` is damaged (row {} of `examples`, {}): {error}; `--reembed` embeds its image again, if \
             that was kept; else restore a backup (`--backups` makes them)",
            store.path().display(),
            example.row,
            example.id,
        ))
    }

    fn enrol(&mut self, encoder: &FaceEncoder, example: &Example) -> Result<()> {
        let face = encoder.embedding(&example.values, example.pixels)?;
        self.gallery.enrol(&example.subject.to_string(), &face)
    }

    /// Removes a subject; its name.
    fn forget(&mut self, subject: i64) -> Option<String> {
        self.gallery.remove(&subject.to_string());
        self.names.remove(&subject)
    }

    /// Puts other faces in the place of those of a subject.
    fn replace(&mut self, encoder: &FaceEncoder, subject: i64, examples: &[Example]) -> Result<()> {
        self.gallery.remove(&subject.to_string());
        examples.iter().try_for_each(|example| self.enrol(encoder, example))
    }
}
