//! Events of a run. Libraries report; who listens decides what to show.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// Something that happened.
#[non_exhaustive]
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins or goes on.
    RunStarted {
        /// Its folder.
        folder: PathBuf,
        /// The step that it goes on from; zero for a new run.
        from_step: u64,
    },
    /// Something long that is not training: `what` is done up to `done` of `total`.
    Working {
        /// For example "features of teacher `discriminative`".
        what: String,
        /// How many are done.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// A file comes from the Hub.
    Downloading {
        /// Its address.
        what: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The student of a run starts from a teacher.
    StudentStarted {
        /// The teacher's name in the recipe.
        teacher: String,
        /// How many tensors it has from the teacher.
        taken: usize,
        /// Its tensors that are new.
        drawn: Vec<String>,
        /// The teacher's tensors that it has no use for.
        left: Vec<String>,
    },
    /// A stage begins or goes on.
    StageStarted {
        /// Its name.
        stage: String,
        /// What it minimises, in words.
        objective: String,
        /// Steps done before.
        from_step: u64,
        /// Steps in all.
        steps: u64,
    },
    /// An optimiser step was made.
    StepDone {
        /// The stage.
        stage: String,
        /// Steps done in the stage.
        step: u64,
        /// Steps of the stage in all.
        steps: u64,
        /// The sum that was minimised.
        loss: f64,
        /// Every term, unweighted, and every detail that terms tell of, by `term` or `term.detail`.
        terms: Vec<(String, f64)>,
        /// The learning rate.
        rate: f64,
        /// Euclidean norm of the gradient before clipping.
        gradient_norm: f64,
        /// Images per second since the step before.
        images_per_second: f64,
    },
    /// A stage was solved in closed form.
    StageSolved {
        /// The stage.
        stage: String,
        /// Faces, each of their variants counted.
        rows: usize,
        /// Values that the solved layer is given.
        inputs: usize,
        /// Values that it gives.
        outputs: usize,
        /// The share of the target's variance that it explains on these faces, before any whitening; none if targets do not vary.
        explained: Option<f64>,
        /// Seconds that it took, features and teachers that ran live among it.
        seconds: f64,
    },
    /// A checkpoint was written.
    CheckpointWritten {
        /// Its folder.
        folder: PathBuf,
    },
    /// Something was measured.
    ProtocolDone {
        /// The protocol's name in the recipe.
        protocol: String,
        /// What was measured.
        embedder: String,
        /// The figure that counts most, with its name: `accuracy 88.06 ± 0.11 %`.
        headline: String,
    },
    /// Something looks wrong but does not stop the run.
    Warning {
        /// What.
        message: String,
    },
    /// The run is over.
    RunEnded {
        /// Its folder.
        folder: PathBuf,
    },
}

/// What an observer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Write a checkpoint and stop.
    Stop,
}

/// Receives events. Threads may share it.
///
/// ```
/// use gdrd_core::observe::{Event, Flow, Observer, tell};
///
/// /// Stops at the first warning.
/// struct Strict;
///
/// impl Observer for Strict {
///     fn on(&self, event: &Event) -> Flow {
///         if matches!(event, Event::Warning { .. }) { Flow::Stop } else { Flow::Continue }
///     }
/// }
///
/// assert!(tell(&Strict, &Event::RunEnded { folder: "run".into() }).is_ok());
/// assert!(tell(&Strict, &Event::Warning { message: "one image".into() }).is_err());
/// ```
pub trait Observer: Send + Sync {
    /// Takes note of an event; says whether the run shall go on.
    fn on(&self, event: &Event) -> Flow;

    /// Says whether the run shall go on, asked often while something long is under way that has no event to tell.
    fn poll(&self) -> Flow {
        Flow::Continue
    }
}

/// Tells an event.
///
/// # Errors
/// If the observer wants to stop ([`ErrorKind::Stopped`]).
pub fn tell(observer: &dyn Observer, event: &Event) -> Result<()> {
    match observer.on(event) {
        Flow::Continue => Ok(()),
        Flow::Stop => Err(Error::new(ErrorKind::Stopped, "stopped by the user")),
    }
}

/// Takes note of nothing.
pub struct Silent;

impl Observer for Silent {
    fn on(&self, _: &Event) -> Flow {
        Flow::Continue
    }
}

/// Keeps every event, for tests.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    /// What happened so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Recorder {
    fn on(&self, event: &Event) -> Flow {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        Flow::Continue
    }
}

/// Several observers as one; each sees every event, and one that wants to stop is enough.
pub struct FanOut<'a>(pub Vec<&'a dyn Observer>);

impl Observer for FanOut<'_> {
    fn on(&self, event: &Event) -> Flow {
        let wishes: Vec<Flow> = self.0.iter().map(|observer| observer.on(event)).collect();
        if wishes.contains(&Flow::Stop) { Flow::Stop } else { Flow::Continue }
    }

    fn poll(&self) -> Flow {
        match self.0.iter().any(|observer| observer.poll() == Flow::Stop) {
            true => Flow::Stop,
            false => Flow::Continue,
        }
    }
}
