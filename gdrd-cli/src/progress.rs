//! What a run shows while it works: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gdrd_core::nn::weights::first_of;
use gdrd_core::observe::{Event, Flow, Observer};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::stop;

/// Seconds between plain lines.
const PAUSE: Duration = Duration::from_secs(5);

/// Shows events on standard error.
pub(crate) struct Progress(Mutex<Screen>);

/// What is shown now.
struct Screen {
    terminal: bool,
    bar: Option<ProgressBar>,
    task: String,
    started: Instant,
    shown: Instant,
    from: u64,
    unit: Unit,
}

/// What a task counts.
#[derive(Clone, Copy)]
enum Unit {
    Things,
    Bytes,
}

impl Unit {
    fn of(self, count: u64) -> String {
        match self {
            Self::Things => count.to_string(),
            Self::Bytes => HumanBytes(count).to_string(),
        }
    }
}

impl Progress {
    pub(crate) fn new() -> Self {
        stop::listen();
        let now = Instant::now();
        Self(Mutex::new(Screen {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            task: String::new(),
            started: now,
            shown: now,
            from: 0,
            unit: Unit::Things,
        }))
    }
}

impl Screen {
    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| talk!("{text}")),
            None => talk!("{text}"),
        }
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.task.clear();
    }

    /// Begins a task if `name` is a new one.
    fn begin(&mut self, name: &str, from: u64, total: u64, unit: Unit) {
        if self.task == name {
            return;
        }
        self.close();
        self.unit = unit;
        self.task = name.to_string();
        self.from = from;
        (self.started, self.shown) = (Instant::now(), Instant::now());
        if self.terminal {
            let bar = ProgressBar::new(total);
            let template = match unit {
                Unit::Things => "{prefix} {wide_bar:.cyan/dim} {pos}/{len} {eta} {msg}",
                Unit::Bytes => "{prefix} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_string());
            self.bar = Some(bar.with_position(from));
        } else if total > 1 {
            talk!("{name}: {} of {}", unit.of(from), unit.of(total));
        } else {
            talk!("{name}");
        }
    }

    fn show(&mut self, done: u64, total: u64, message: &str) {
        let over = done >= total;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_string());
        } else if total > 1 && (over || self.shown.elapsed() > PAUSE) {
            self.shown = Instant::now();
            let spent = self.started.elapsed();
            let left = spent.mul_f64((total - done.min(total)) as f64 / (done - self.from.min(done)).max(1) as f64);
            let clock =
                if over { format!("{} spent", HumanDuration(spent)) } else { format!("{} left", HumanDuration(left)) };
            let message = if message.is_empty() { String::new() } else { format!(", {message}") };
            talk!("{}: {} of {}, {clock}{message}", self.task, self.unit.of(done), self.unit.of(total));
        }
        if over {
            self.close();
        }
    }
}

impl Screen {
    fn take(&mut self, event: &Event) {
        match event {
            Event::RunStarted { folder, from_step } => {
                stop::in_run(folder);
                match from_step {
                    0 => self.say(&format!("run {}", folder.display())),
                    step => self.say(&format!("run {}, going on from step {step}", folder.display())),
                }
            }
            Event::Working { what, done, total } => {
                self.begin(what, 0, *total as u64, Unit::Things);
                self.show(*done as u64, *total as u64, "");
            }
            Event::Downloading { what, done, total } => {
                self.begin(what, *done, *total, Unit::Bytes);
                self.show(*done, *total, "");
            }
            Event::StudentStarted { teacher, taken, drawn, left } => {
                self.close();
                let list = |names: &[String]| first_of(names.len(), names.iter().map(|name| format!("`{name}`")));
                let mut text = format!("student: {taken} tensors of teacher `{teacher}`");
                if !drawn.is_empty() {
                    text += &format!("; new: {}", list(drawn));
                }
                if !left.is_empty() {
                    text += &format!("; not taken: {}", list(left));
                }
                self.say(&text);
            }
            Event::StageStarted { stage, objective, .. } => {
                self.close();
                self.say(&format!("stage `{stage}`: {objective}"));
            }
            Event::StepDone { stage, step, steps, loss, terms, rate, images_per_second, .. } => {
                self.begin(stage, step - 1, *steps, Unit::Things);
                let terms: Vec<String> = terms.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
                let message =
                    format!("{images_per_second:.0} images/s, rate {rate:.1e}, loss {loss:.4}, {}", terms.join(", "));
                self.show(*step, *steps, &message);
            }
            Event::StageSolved { stage, rows, inputs, outputs, explained, seconds } => {
                self.close();
                let explained = explained.map_or(String::new(), |share| format!(", {:.1} % explained", 100.0 * share));
                self.say(&format!(
                    "stage `{stage}`: {inputs} to {outputs} values from {rows} faces in {seconds:.1} s{explained}"
                ));
            }
            Event::ProtocolDone { protocol, embedder, headline } => {
                self.close();
                self.say(&format!("{protocol}: {embedder}: {headline}"));
            }
            Event::Warning { message } => self.say(&format!("warning: {message}")),
            Event::RunEnded { .. } => self.close(),
            _ => {}
        }
    }
}

impl Observer for Progress {
    fn on(&self, event: &Event) -> Flow {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(event);
        match event {
            Event::StageStarted { .. } | Event::StepDone { .. } => stop::in_steps(true),
            Event::CheckpointWritten { .. } | Event::Warning { .. } => {}
            _ => stop::in_steps(false),
        }
        stop::wish()
    }

    fn poll(&self) -> Flow {
        stop::wish()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
