//! The log of a run as event files of TensorBoard: of a run that lies there, or of one as it goes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::folder::{RunFolder, log_line};
use super::mark::State;
use crate::error::{Error, Result};
use crate::files::{self, write_atomically};
use crate::observe::{Event, Flow, Observer};
use crate::report::EventFile;

const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = "gdrd";

impl RunFolder {
    /// Writes an event file into `folder`, made anew at every call: scalars of each term, of the rate, the gradient and the speed, by
    /// stage; the samples; the headlines of what was measured; the resolved recipe. A run that is not over gives what it has so far. The
    /// steps' times follow from their speed.
    ///
    /// # Errors
    /// If there is no run, a file of it cannot be read, or the event file cannot be written.
    pub fn write_events(&self, folder: &Path) -> Result<PathBuf> {
        let state = self.state()?;
        if state == State::Empty {
            return Err(Error::recipe(format!("`{}` is no run folder of gdrd", self.path().display())));
        }
        let mut so_far = self.events(false)?;
        if state == State::Finished {
            self.measured_events(&mut so_far)?;
        }
        files::make_folders(folder).map_err(|e| Error::io(folder, e))?;
        forget(folder)?;
        let path = folder.join(format!("{PREFIX}{SUFFIX}"));
        write_atomically(&path, &so_far.events.into_bytes())?;
        Ok(path)
    }

    /// The recipe, the samples and the steps of the log; a `session` that begins voids what an earlier one has written.
    fn events(&self, session: bool) -> Result<SoFar> {
        let recipe = self.recipe();
        let text = files::read_to_string(&recipe).map_err(|e| Error::io(&recipe, e))?;
        let table: toml::Table = text.parse().map_err(|e| Error::data(format!("`{}`: {e}", recipe.display())))?;
        let begun = self.began()?;
        let (mut time, mut last) = (begun, 0);
        let mut events = EventFile::new(begun);
        if session {
            events.session(begun);
        }
        let name = table.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        events.text(time, 0, "recipe", &format!("`{name}`\n\n    {}", text.replace('\n', "\n    ")));
        let samples = self.path().join("samples.png");
        if let Ok(png) = files::read(&samples) {
            let reader = image::ImageReader::with_format(std::io::Cursor::new(&png), image::ImageFormat::Png);
            let (width, height) =
                reader.into_dimensions().map_err(|e| Error::data(format!("`{}`: {e}", samples.display())))?;
            events.image(time, 0, "samples", (width.into(), height.into()), &png);
        }
        for line in self.metrics()? {
            let (Some(total), Some(stage)) = (line["total_step"].as_u64(), line["stage"].as_str()) else { continue };
            last = total;
            let images = |key: &str| table.get("stage")?.get(stage)?.get(key)?.as_integer();
            let batch = images("batch_size").unwrap_or(1) * images("accumulate").unwrap_or(1);
            if let Some(speed) = line["images_per_second"].as_f64().filter(|speed| *speed > 0.0) {
                time += batch as f64 / speed;
            }
            step(&mut events, time, total, stage, &line);
        }
        Ok(SoFar { events, time, last })
    }

    /// Adds the headlines of what was measured.
    fn measured_events(&self, so_far: &mut SoFar) -> Result<()> {
        let mut values = Vec::new();
        for (protocol, rows) in self.results()? {
            for row in rows {
                let headline = row.outcome.headline()?;
                let tag = format!("{protocol}/{}/{}", headline.name, row.embedder);
                values.extend(headline.value.map(|value| (tag, value)));
            }
        }
        let values = values.iter().map(|(tag, value)| (tag.as_str(), *value));
        so_far.events.scalars(so_far.time, so_far.last, values);
        Ok(())
    }
}

/// Events of a run up to a step.
struct SoFar {
    events: EventFile,
    /// Seconds since 1970 of the last of them.
    time: f64,
    /// The last step.
    last: u64,
}

/// Adds what a line of the log says of a step.
fn step(events: &mut EventFile, time: f64, total: u64, stage: &str, line: &Value) {
    let plain = ["loss", "rate", "gradient_norm", "images_per_second"];
    let plain = plain.iter().filter_map(|key| Some((format!("{stage}/{key}"), line[*key].as_f64()?)));
    let terms = line["terms"].as_object().into_iter().flatten();
    let terms =
        terms.filter_map(|(name, value)| Some((format!("{stage}/{}", name.replacen('.', "/", 1)), value.as_f64()?)));
    let solved = line["solved"]["explained"].as_f64().map(|share| (format!("{stage}/explained"), share));
    let values: Vec<(String, f64)> = plain.chain(terms).chain(solved).collect();
    events.scalars(time, total, values.iter().map(|(tag, value)| (tag.as_str(), *value)));
}

/// Removes event files of gdrd, so that no step stands in two of them; the number for the next one.
fn forget(folder: &Path) -> Result<u64> {
    let mut next = 1;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let number = rest.strip_suffix(SUFFIX).and_then(|number| number.strip_suffix('.')?.parse::<u64>().ok());
        if rest == SUFFIX || number.is_some() {
            files::remove(&entry.path())?;
            next = next.max(number.unwrap_or(0) + 1);
        }
    }
    Ok(next)
}

/// Writes the event file of a run as it goes, and hands its events on. Each time that the run begins or goes on, a new file is begun
/// with what the run's log has, and takes the place of the one before: no step is in two files, whatever became of the run.
///
/// A file that cannot be written is a warning, and the run goes on.
pub struct LiveEvents<'a> {
    folder: PathBuf,
    then: &'a dyn Observer,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    run: Option<RunFolder>,
    file: Option<(File, PathBuf, SoFar)>,
    /// Whether it was given up.
    failed: bool,
}

impl<'a> LiveEvents<'a> {
    /// Writes into `folder`, which is made, and hands events on to `then`.
    pub fn new(folder: impl Into<PathBuf>, then: &'a dyn Observer) -> Self {
        Self { folder: folder.into(), then, live: Mutex::default() }
    }

    fn write(&self, live: &mut Live, event: &Event) -> Result<()> {
        if let Event::RunStarted { folder, .. } = event {
            *live = Live { run: Some(RunFolder::new(folder)), ..Live::default() };
        }
        // By now the log is cut back to the step that the run goes on from.
        let begins = matches!(event, Event::StageStarted { .. } | Event::RunEnded { .. });
        let Some(run) = &live.run else { return Ok(()) };
        if begins && live.file.is_none() {
            let so_far = run.events(true)?;
            files::make_folders(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
            let path = self.folder.join(format!("{PREFIX}{:06}.{SUFFIX}", forget(&self.folder)?));
            let file = File::options().create_new(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
            live.file = Some((file, path, so_far));
        }
        let Some((file, path, so_far)) = &mut live.file else { return Ok(()) };
        if let Some(line) = log_line(event, so_far.last + 1) {
            so_far.last += 1;
            so_far.time = files::now().duration_since(UNIX_EPOCH).map_or(so_far.time, |time| time.as_secs_f64());
            step(&mut so_far.events, so_far.time, so_far.last, line["stage"].as_str().unwrap_or_default(), &line);
        }
        if matches!(event, Event::RunEnded { .. }) {
            run.measured_events(so_far)?;
        }
        // Whole records at once: who reads meanwhile finds no half.
        files::write_all(file, path, &so_far.events.take()).map_err(|e| Error::io(&*path, e))
    }
}

impl Observer for LiveEvents<'_> {
    fn on(&self, event: &Event) -> Flow {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let written = if live.failed { Ok(()) } else { self.write(&mut live, event) };
        let mut flow = self.then.on(event);
        if let Err(error) = written {
            live.failed = true;
            let message = format!("{error}; no more events are written for TensorBoard");
            if self.then.on(&Event::Warning { message }) == Flow::Stop {
                flow = Flow::Stop;
            }
        }
        flow
    }

    fn poll(&self) -> Flow {
        self.then.poll()
    }
}
