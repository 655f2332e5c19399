//! The photographs that were decoded last, for datasets that have several faces in one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::decode::MAX_PIXELS;
use crate::error::Result;
use crate::face::Face;

/// The most bytes of pixels that are kept: those of the largest photograph that gdrd reads.
const KEPT: usize = 3 * MAX_PIXELS as usize;
/// The most photographs that are kept, or being decoded.
const MOST: usize = 64;

/// Photographs that were decoded last. Who asks for one that another thread decodes waits for it.
#[derive(Default)]
pub(super) struct Photographs(Mutex<Vec<Slot>>);

struct Slot {
    path: PathBuf,
    /// Bytes of its pixels; 0 until it is decoded.
    bytes: usize,
    image: Arc<Mutex<Option<Arc<Face>>>>,
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Photographs {
    /// The photograph in the file `path`, which `decode` reads if it is not there.
    ///
    /// # Errors
    /// That of `decode`; the next who asks decodes again.
    pub(super) fn get(&self, path: &Path, decode: impl FnOnce() -> Result<Face>) -> Result<Arc<Face>> {
        let slot = self.slot(path);
        let mut image = open(&slot);
        if let Some(image) = &*image {
            return Ok(image.clone());
        }
        let face = Arc::new(decode()?);
        *image = Some(face.clone());
        drop(image);
        self.keep(path, face.pixels().len());
        Ok(face)
    }

    /// The place of a photograph, which becomes the last that was asked for.
    fn slot(&self, path: &Path) -> Arc<Mutex<Option<Arc<Face>>>> {
        let mut slots = open(&self.0);
        let slot = match slots.iter().position(|slot| slot.path == path) {
            Some(at) => slots.remove(at),
            None => Slot { path: path.to_path_buf(), bytes: 0, image: Arc::default() },
        };
        let image = slot.image.clone();
        slots.push(slot);
        image
    }

    /// Takes note of how large a photograph is, and lets go of those that were asked for longest ago.
    fn keep(&self, path: &Path, bytes: usize) {
        let mut slots = open(&self.0);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.path == path) {
            slot.bytes = bytes;
        }
        while slots.len() > MOST || slots.iter().map(|slot| slot.bytes).sum::<usize>() > KEPT {
            slots.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    fn face(shade: u8) -> Result<Face> {
        Face::new(4, 4, vec![shade; 48])
    }

    #[test]
    fn a_photograph_is_decoded_once_by_many_threads_and_again_where_it_failed() {
        let (kept, decoded) = (Photographs::default(), AtomicUsize::new(0));
        assert!(kept.get(Path::new("a"), || Err(Error::data("cut"))).is_err());
        let ask = || {
            let image = kept.get(Path::new("a"), || {
                decoded.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(20));
                face(7)
            });
            assert_eq!(image.expect("a photograph").pixels()[0], 7);
        };
        std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(ask))));
        assert_eq!(decoded.into_inner(), 1);
    }

    #[test]
    fn what_was_asked_for_longest_ago_goes_first() {
        let kept = Photographs::default();
        let get = |name: usize| kept.get(Path::new(&name.to_string()), || face(name as u8)).expect("a photograph");
        (0..MOST).for_each(|name| drop(get(name)));
        get(0);
        get(MOST);
        let is_there = |name: usize| open(&kept.0).iter().any(|slot| slot.path == Path::new(&name.to_string()));
        assert!(is_there(0) && !is_there(1) && is_there(2) && is_there(MOST));
        // Those that were decoded before make room for large ones.
        kept.keep(Path::new("2"), KEPT / 2);
        kept.keep(Path::new("0"), KEPT / 2);
        assert!(!is_there(2) && is_there(0), "the pixels of both and of the small ones are too many");
    }
}
