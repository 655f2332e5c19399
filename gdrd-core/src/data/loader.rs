//! Batches, made ahead of the training step on worker threads.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::augment::Augment;
use super::batch::{Batch, Wanted};
use super::groups::Groups;
use super::views::Views;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::{Seed, shuffled};

/// Batches that are ready before they are asked for.
const AHEAD: u64 = 6;

/// Which samples make which step; a pure function of the seed, so that it need not be saved.
#[derive(Clone, Debug)]
pub struct Order {
    /// The run's seed.
    pub seed: Seed,
    /// The stage's name: stages draw apart.
    pub stage: String,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Number of samples in the dataset; the rest of an epoch that fills no batch is left out of it.
    pub samples: usize,
    /// How many images of a person follow each other, and whose each sample is; none if people do not matter.
    pub groups: Option<Groups>,
    /// Random changes.
    pub augment: Augment,
    /// The view that the student sees.
    pub view: String,
    /// The batches at the end that are shown otherwise, if there are some.
    pub last: Option<LastPhaseOrder>,
}

/// How faces are shown at the end of a stage.
#[derive(Clone, Debug)]
pub struct LastPhaseOrder {
    /// The first step, in batches, that is shown so.
    pub from: u64,
    /// Random changes.
    pub augment: Augment,
    /// The view that the student sees.
    pub view: String,
}

impl Order {
    /// Steps in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.samples / self.batch_size) as u64
    }

    /// The random changes and the student's view at a step.
    pub(super) fn shown(&self, step: u64) -> (&Augment, &str) {
        match self.last.as_ref().filter(|last| step >= last.from) {
            Some(last) => (&last.augment, &last.view),
            None => (&self.augment, &self.view),
        }
    }

    fn of_epoch(&self, epoch: u64) -> Vec<usize> {
        let mut stream = self.seed.stream(&format!("order/{}", self.stage), &[epoch]);
        let order = shuffled(&mut stream, self.samples);
        match &self.groups {
            None => order,
            Some(groups) => groups.together(&order, &mut stream),
        }
    }
}

/// Worker threads that make batches in the order of their steps.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    next: u64,
    end: u64,
}

struct Shared {
    views: Views,
    order: Order,
    wanted: Vec<Wanted>,
    claimed: AtomicU64,
    closed: AtomicBool,
    ready: Mutex<Ready>,
    changed: Condvar,
}

struct Ready {
    taken: u64,
    batches: BTreeMap<u64, Result<Batch>>,
}

impl Loader {
    /// Starts `workers` threads that make the batches of the steps `from..to`; fewer where the system gives no more.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn start(
        views: Views,
        order: Order,
        wanted: Vec<Wanted>,
        steps: std::ops::Range<u64>,
        workers: usize,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            views,
            order,
            wanted,
            claimed: AtomicU64::new(steps.start),
            closed: AtomicBool::new(false),
            ready: Mutex::new(Ready { taken: steps.start, batches: BTreeMap::new() }),
            changed: Condvar::new(),
        });
        let mut loader = Self { shared, workers: Vec::new(), next: steps.start, end: steps.end };
        for _ in 0..workers.max(1) {
            let shared = loader.shared.clone();
            let name = "gdrd faces".to_string();
            match std::thread::Builder::new().name(name).spawn(move || shared.work(steps.end)) {
                Ok(worker) => loader.workers.push(worker),
                Err(_) if !loader.workers.is_empty() => break,
                Err(error) => return Err(Error::data(format!("no thread that reads faces can be started: {error}"))),
            }
        }
        Ok(loader)
    }

    /// The next batch; none when the steps are over. While there is none yet, `stop` is asked from time to time.
    ///
    /// # Errors
    /// If a face cannot be read or its worker panicked, or `stop` says so ([`ErrorKind::Stopped`]; the batch is not lost).
    pub fn next_batch(&mut self, stop: &mut dyn FnMut() -> bool) -> Option<Result<Batch>> {
        if self.next == self.end {
            return None;
        }
        let mut ready = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = loop {
            if stop() {
                return Some(Err(Error::new(ErrorKind::Stopped, "stopped by the user")));
            }
            if let Some(batch) = ready.batches.remove(&self.next) {
                break batch;
            }
            let wait = std::time::Duration::from_millis(200);
            let (guard, waited) = self.shared.changed.wait_timeout(ready, wait).unwrap_or_else(PoisonError::into_inner);
            ready = guard;
            if waited.timed_out() {
                // A dataset may share its work on the pool that this thread belongs to; on one core nobody else would do it.
                drop(ready);
                rayon::yield_now();
                ready = self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
            }
        };
        self.next += 1;
        ready.taken = self.next;
        self.shared.changed.notify_all();
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // What panics in a worker is a batch's error, and the worker goes on.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, end: u64) {
        let mut order = (u64::MAX, Vec::new());
        loop {
            let step = self.claimed.fetch_add(1, Ordering::Relaxed);
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            while step >= ready.taken + AHEAD && !self.closed.load(Ordering::Relaxed) {
                let wait = std::time::Duration::from_millis(200);
                ready = self.changed.wait_timeout(ready, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(ready);
            if step >= end || self.closed.load(Ordering::Relaxed) {
                return;
            }
            let epoch = step / self.order.steps_per_epoch();
            if order.0 != epoch {
                order = (epoch, self.order.of_epoch(epoch));
            }
            // Every step that was claimed gets its batch or an error: whoever waits for it waits for nothing else.
            let made = catch_unwind(AssertUnwindSafe(|| self.batch(step, epoch, &order.1)));
            let batch = made.unwrap_or_else(|panic| Err(panicked(&*panic)));
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).batches.insert(step, batch);
            self.changed.notify_all();
        }
    }

    fn batch(&self, step: u64, epoch: u64, order: &[usize]) -> Result<Batch> {
        let size = self.order.batch_size;
        let start = (step % self.order.steps_per_epoch()) as usize * size;
        let indices = order[start..start + size].to_vec();
        let is_over = || self.closed.load(Ordering::Relaxed);
        Batch::make((step, epoch), indices, &self.order, &self.views, &self.wanted, &is_over)
    }
}

/// What a worker that panicked said.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    Error::component(format!("a thread that reads faces panicked: {}", text.unwrap_or("without a message")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Bare, BuildContext};
    use crate::data::{AsIs, DatasetConfig, HIGH, LOW, Mixup, SyntheticFaces, Targets};
    use crate::degrade::Downscale;
    use crate::face::Face;

    fn loader(from: u64, workers: usize) -> Loader {
        shown(Augment { flip: true, shift: 1, ..Augment::none() }, None, from, workers)
    }

    fn shown(augment: Augment, last: Option<LastPhaseOrder>, from: u64, workers: usize) -> Loader {
        let config = SyntheticFaces {
            identities: 5,
            images_per_identity: 2,
            first_identity: 0,
            size: 16,
            fixed_appearance: true,
        };
        let bare = Bare(candle_core::Device::Cpu);
        let dataset = config.build(&BuildContext::new(&bare)).expect("data");
        let views = Views::new(dataset.into(), "test")
            .with(LOW, Arc::new(Downscale { size: 8, ..Downscale::default() }), "low")
            .with(HIGH, Arc::new(AsIs {}), "high");
        let order = Order {
            seed: Seed(7),
            stage: "test".into(),
            batch_size: 4,
            samples: 10,
            groups: None,
            augment,
            view: LOW.into(),
            last,
        };
        let wanted = vec![Wanted { view: HIGH.into(), size: Some(12) }];
        Loader::start(views, order, wanted, from..7, workers).expect("threads")
    }

    fn all(mut loader: Loader) -> Vec<Batch> {
        std::iter::from_fn(|| loader.next_batch(&mut || false)).map(|batch| batch.expect("batch")).collect()
    }

    #[test]
    fn batches_come_in_order_and_do_not_depend_on_the_workers() {
        let (one, three) = (all(loader(0, 1)), all(loader(0, 3)));
        assert_eq!(one.len(), 7);
        for (a, b) in one.iter().zip(&three) {
            assert_eq!((a.step, &a.indices, &a.faces), (b.step, &b.indices, &b.faces));
            assert_eq!((a.faces[0].width(), a.views[0][0].width()), (8, 12));
        }
    }

    #[test]
    fn a_later_start_gives_the_same_later_batches() {
        let (whole, rest) = (all(loader(0, 2)), all(loader(5, 2)));
        assert_eq!(whole[5].indices, rest[0].indices);
        assert_eq!(whole[6].faces, rest[1].faces);
    }

    #[test]
    fn mixtures_are_of_a_batch_and_teachers_see_them_when_asked() {
        let mixing = |targets| {
            let mixup = Some(Mixup { faces: 0.5, targets, ..Mixup::default() });
            all(shown(Augment { flip: true, mixup, ..Augment::none() }, None, 0, 2))
        };
        let plain = all(shown(Augment { flip: true, ..Augment::none() }, None, 0, 2));
        let (seen, unseen) = (mixing(Targets::Teacher), mixing(Targets::Mixed));
        let mut mixtures = 0;
        for ((plain, seen), unseen) in plain.iter().zip(&seen).zip(&unseen) {
            assert_eq!((&plain.indices, &plain.variants), (&seen.indices, &seen.variants));
            assert_eq!((&seen.faces, &plain.views), (&unseen.faces, &unseen.views));
            let shares = &seen.mixed.as_ref().expect("mixed").shares;
            for (at, share) in shares.iter().enumerate() {
                let other = (at + 2) % 4;
                let of = |faces: &[Face]| faces[at].mixed(&faces[other], *share).expect("a mixture");
                assert_eq!((&seen.faces[at], &seen.views[0][at]), (&of(&plain.faces), &of(&plain.views[0])));
                mixtures += usize::from(*share < 1.0);
            }
        }
        assert!((7..=21).contains(&mixtures), "{mixtures} of 28");
    }

    #[test]
    fn the_last_phase_is_shown_otherwise() {
        let augment = Augment { shift: 3, flip: true, ..Augment::none() };
        let last = LastPhaseOrder { from: 4, augment: augment.mirrored_alone(), view: HIGH.into() };
        let (whole, changed) = (all(shown(augment.clone(), None, 0, 2)), all(shown(augment, Some(last), 0, 2)));
        for (step, (whole, changed)) in whole.iter().zip(&changed).enumerate() {
            assert_eq!(whole.indices, changed.indices);
            assert_eq!(whole.faces == changed.faces, step < 4);
            assert_eq!(changed.faces[0].width(), if step < 4 { 8 } else { 16 });
        }
    }

    #[test]
    fn an_epoch_sees_no_sample_twice() {
        let batches = all(loader(0, 2));
        let mut epoch: Vec<usize> = batches[0].indices.iter().chain(&batches[1].indices).copied().collect();
        epoch.sort_unstable();
        epoch.dedup();
        assert_eq!(epoch.len(), 8);
    }

    /// Its face 3 makes a worker panic.
    struct Broken;

    impl crate::data::Dataset for Broken {
        fn len(&self) -> usize {
            8
        }

        fn people(&self) -> &[String] {
            &[]
        }

        fn person(&self, _: usize) -> Option<usize> {
            None
        }

        fn key(&self, index: usize) -> String {
            format!("face {index}")
        }

        fn face(&self, index: usize) -> Result<Face> {
            assert!(index != 3, "face {index} has no eyes");
            Face::new(8, 8, vec![0; 192])
        }
    }

    fn broken(workers: usize) -> Loader {
        let views = Views::new(Arc::new(Broken), "broken").with(LOW, Arc::new(AsIs {}), "low");
        let (stage, augment) = ("test".to_string(), Augment::none());
        let order = Order {
            seed: Seed(7),
            stage,
            batch_size: 2,
            samples: 8,
            groups: None,
            augment,
            view: LOW.into(),
            last: None,
        };
        Loader::start(views, order, Vec::new(), 0..40, workers).expect("threads")
    }

    #[test]
    fn a_panic_of_one_worker_is_an_error_and_no_hang() {
        for workers in [1, 2, 3] {
            let mut loader = broken(workers);
            let error = (0..4).find_map(|_| loader.next_batch(&mut || false).expect("more steps").err());
            let error = error.expect("every epoch has this face").to_string();
            assert!(error.contains("panicked: face 3 has no eyes"), "{error}");
        }
    }

    #[test]
    fn a_wish_to_stop_is_heard_while_nothing_comes() {
        let mut loader = broken(1);
        let error = loader.next_batch(&mut || true).expect("more steps").err().expect("stopped");
        assert_eq!(error.kind(), ErrorKind::Stopped);
    }
}
