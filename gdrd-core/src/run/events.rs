//! The log of a run as an event file of TensorBoard.

use std::path::{Path, PathBuf};

use super::folder::RunFolder;
use super::mark::State;
use crate::error::{Error, Result};
use crate::files::{self, write_atomically};
use crate::report::EventFile;

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
        let recipe = self.recipe();
        let text = files::read_to_string(&recipe).map_err(|e| Error::io(&recipe, e))?;
        let table: toml::Table = text.parse().map_err(|e| Error::data(format!("`{}`: {e}", recipe.display())))?;
        let begun = self.began()?;
        let (mut time, mut last) = (begun, 0);
        let mut events = EventFile::new(begun);
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
            let plain = ["loss", "rate", "gradient_norm", "images_per_second"];
            let plain = plain.iter().filter_map(|key| Some((format!("{stage}/{key}"), line[*key].as_f64()?)));
            let terms = line["terms"].as_object().into_iter().flatten();
            let terms = terms
                .filter_map(|(name, value)| Some((format!("{stage}/{}", name.replacen('.', "/", 1)), value.as_f64()?)));
            let solved = line["solved"]["explained"].as_f64().map(|share| (format!("{stage}/explained"), share));
            let values: Vec<(String, f64)> = plain.chain(terms).chain(solved).collect();
            events.scalars(time, total, values.iter().map(|(tag, value)| (tag.as_str(), *value)));
        }
        if state == State::Finished {
            let mut values = Vec::new();
            for (protocol, rows) in self.results()? {
                for row in rows {
                    let headline = row.outcome.headline()?;
                    values.extend(
                        headline.value.map(|value| (format!("{protocol}/{}/{}", headline.name, row.embedder), value)),
                    );
                }
            }
            events.scalars(time, last, values.iter().map(|(tag, value)| (tag.as_str(), *value)));
        }
        files::make_folders(folder).map_err(|e| Error::io(folder, e))?;
        let path = folder.join("events.out.tfevents.gdrd");
        write_atomically(&path, &events.into_bytes())?;
        Ok(path)
    }
}
