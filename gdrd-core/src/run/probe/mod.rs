//! What a frozen network knows of who a face is, tap by tap, without training: a linear map in closed form from the features of
//! each tap to another teacher's embedding, measured on people that it was not fitted to.

mod embedder;
mod faces;
mod report;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::Tensor;
use serde::Serialize;

use self::embedder::Mapped;
pub use self::faces::Target;
use self::faces::{BATCH, Faces};
pub use self::report::{table, write};
use self::source::{Source, Tap};
use super::Place;
use super::assembly::Assembly;
use crate::closed_form::{MOST_INPUTS, Moments, Solution};
use crate::context::Host;
use crate::data::{Degradation, LOW};
use crate::degrade::Downscale;
use crate::digest;
use crate::error::{Context, Error, Result};
use crate::evaluation::Outcome;
use crate::experiment::Experiment;
use crate::observe::{Event, Observer, tell};
use crate::teacher::{Teacher, embedding_width};

/// Bytes of sums that are kept at once; the taps of a source that need more are probed in several passes.
const BYTES: usize = 3 << 30;

/// What is probed, and how.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// The teachers that are probed; all that have feature maps when there is none.
    pub teachers: Vec<String>,
    /// The views that they are shown, each in turn; that of each teacher's card when there is none.
    pub views: Vec<String>,
    /// The maps that are probed (`embedding` and `logits` are outputs too); all maps and the embedding when there is none.
    pub maps: Vec<String>,
    /// What features are mapped to; the only teacher with embeddings when left out, and identity where there is no teacher.
    pub target: Option<Target>,
    /// The dataset of the faces that maps are fitted to; that of the first stage when left out.
    pub data: Option<String>,
    /// Faces that maps are fitted to, at most.
    pub faces: usize,
    /// Values of a tap at most; larger maps are pooled. A map keeps at least one value a channel.
    pub values: usize,
    /// The penalty, in units of the mean diagonal of the Gram matrix.
    pub ridge: f64,
    /// The protocol that measures; the recipe's first when left out, and people held out of the data where it has none.
    pub protocol: Option<String>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            teachers: Vec::new(),
            views: Vec::new(),
            maps: Vec::new(),
            target: None,
            data: None,
            faces: 6000,
            values: 4096,
            ridge: 1.0,
            protocol: None,
        }
    }
}

/// A recipe with some values changed.
pub struct Variation {
    /// The keys that are varied, and their values here.
    pub values: Vec<(String, String)>,
    /// The recipe with them.
    pub experiment: Experiment,
}

/// One tap, and what a linear map makes of it.
#[derive(Clone, Debug, Serialize)]
pub struct Probed {
    /// The keys that are varied, and their values here.
    pub varied: Vec<(String, String)>,
    /// The teacher; none for the pixels.
    pub teacher: Option<String>,
    /// The view that it is shown, or its views.
    pub view: String,
    /// The output.
    pub output: String,
    /// The shape of the output for one face.
    pub shape: Vec<usize>,
    /// The shape that was left of it by pooling.
    pub pooled: Vec<usize>,
    /// The share of the target's variance that the map explains on the faces that it was fitted to.
    pub explained: Option<f64>,
    /// What the protocol measured.
    pub outcome: Outcome,
}

/// Everything that was probed, best first.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// What was mapped to.
    pub target: String,
    /// Faces that maps were fitted to.
    pub faces: usize,
    /// The penalty.
    pub ridge: f64,
    /// The protocol.
    pub protocol: String,
    /// The taps, by the protocol's headline.
    pub rows: Vec<Probed>,
}

/// Probes every tap of the teachers that are asked for, in every variation, and the pixels of each view. A source that is the same
/// in two variations is probed in the first.
///
/// # Errors
/// If options name what the recipe does not have, no teacher has anything to probe, a network or the protocol fails, or the
/// observer stops.
pub fn probe(
    variations: &[Variation],
    options: &ProbeOptions,
    place: &Place,
    observer: &dyn Observer,
) -> Result<Probe> {
    let (mut seen, mut targets) = (BTreeSet::new(), BTreeMap::new());
    let mut probe: Option<Probe> = None;
    for variation in variations {
        let parts = Assembly::new(&variation.experiment, place, observer)?;
        let target = target(&parts, options)?;
        let faces = Faces::new(&parts, options, &target)?;
        let fitted = faces.content(&parts)?;
        let sources = sources(&parts, options, &fitted, &mut seen)?;
        let named = match &target {
            Target::Teacher(name) => format!("embedding of teacher `{name}`"),
            Target::Identity => "identity".to_string(),
        };
        let probe = probe.get_or_insert_with(|| Probe {
            target: named,
            faces: faces.indices.len(),
            ridge: options.ridge,
            protocol: faces.measured_by.clone(),
            rows: Vec::new(),
        });
        if sources.is_empty() {
            continue;
        }
        let key = target_key(&parts, &target, &fitted)?;
        let y = match targets.get(&key) {
            Some(y) => Tensor::clone(y),
            None => targets.entry(key).or_insert(faces.targets(&parts, &target)?).clone(),
        };
        let work = Work { parts: &parts, options, faces: &faces, y: &y, varied: &variation.values };
        for source in sources {
            probe.rows.extend(work.probe(source)?);
        }
    }
    let mut probe = probe.ok_or_else(|| Error::recipe("expected at least one variation, found none"))?;
    if probe.rows.iter().all(|row| row.teacher.is_none()) {
        return Err(Error::recipe("the recipe has no teacher with feature maps; name one with `--teacher`"));
    }
    sort(&mut probe.rows)?;
    Ok(probe)
}

/// Best first, by the headline.
fn sort(rows: &mut [Probed]) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let higher = first.outcome.headline()?.higher_is_better;
    let value = |row: &Probed| {
        let value = row.outcome.headline().ok().and_then(|figure| figure.value);
        value.map_or(f64::NEG_INFINITY, |value| if higher { value } else { -value })
    };
    rows.sort_by(|a, b| value(b).total_cmp(&value(a)));
    Ok(())
}

/// What features are mapped to.
fn target(parts: &Assembly, options: &ProbeOptions) -> Result<Target> {
    let cx = parts.context();
    let embeds = |name: &String| -> Result<bool> {
        let teacher = cx.teacher(name)?;
        Ok(teacher.knows_any_face() && embedding_width(&*teacher).is_ok())
    };
    match &options.target {
        Some(Target::Identity) => Ok(Target::Identity),
        Some(Target::Teacher(name)) => match embeds(name)? {
            true => Ok(Target::Teacher(name.clone())),
            false => Err(Error::component(format!("teacher `{name}` has no embeddings of any face to map to"))),
        },
        None => {
            let mut able = Vec::new();
            for name in parts.experiment().teachers.keys() {
                if embeds(name)? {
                    able.push(name.clone());
                }
            }
            match able.len() {
                0 => Ok(Target::Identity),
                1 => Ok(Target::Teacher(able.remove(0))),
                _ => Err(Error::recipe(format!(
                    "expected one teacher with embeddings to map to, found {able:?}; name one with `--target`"
                ))),
            }
        }
    }
}

/// Everything that the targets depend on; `fitted` is of the faces.
fn target_key(parts: &Assembly, target: &Target, fitted: &str) -> Result<String> {
    let of_teacher = match target {
        Target::Identity => None,
        Target::Teacher(name) => {
            let views = parts.views_of(&*parts.context().teacher(name)?)?;
            Some((parts.content("teacher", name)?, views))
        }
    };
    Ok(digest::of_value(&(of_teacher, fitted)))
}

/// A source with its name.
struct Named {
    teacher: Option<String>,
    view: String,
    source: Source,
}

/// What is probed and was not seen yet with these faces.
fn sources(parts: &Assembly, options: &ProbeOptions, fitted: &str, seen: &mut BTreeSet<String>) -> Result<Vec<Named>> {
    let cx = parts.context();
    let names: Vec<String> = match options.teachers.is_empty() {
        false => options.teachers.clone(),
        true => parts.experiment().teachers.keys().cloned().collect(),
    };
    let downscale = |view: &str| -> Result<Option<Downscale>> {
        Ok(cx.part::<dyn Degradation>("view", view)?.downscale().cloned())
    };
    let mut found = Vec::new();
    let mut add = |teacher: Option<(&String, Arc<dyn Teacher>)>, shown: &[String]| -> Result<()> {
        let views = shown.iter().map(|view| downscale(view)).collect::<Result<Vec<_>>>()?;
        let content = teacher.as_ref().map(|(name, _)| parts.content("teacher", name)).transpose()?;
        if seen.insert(digest::of_value(&(content, &views, fitted))) {
            let (name, teacher) = teacher.map(|(name, teacher)| (name.clone(), teacher)).unzip();
            let source = Source::new(teacher, views, parts.device());
            found.push(Named { teacher: name, view: shown.join(" and "), source });
        }
        Ok(())
    };
    let mut pixels = options.views.clone();
    for name in &names {
        let teacher = cx.teacher(name)?;
        if options.teachers.is_empty() && (teacher.maps().is_empty() || !teacher.knows_any_face()) {
            continue;
        }
        let card = teacher.card();
        match options.views.as_slice() {
            [] => {
                pixels.extend(card.views.first().cloned());
                add(Some((name, teacher.clone())), &card.views)?;
            }
            views if card.views.len() == 1 => {
                views.iter().try_for_each(|view| add(Some((name, teacher.clone())), std::slice::from_ref(view)))?;
            }
            _ => {
                let count = card.views.len();
                let message = format!("teacher `{name}` is shown {count} views at once; `--view` cannot replace them");
                return Err(Error::recipe(message));
            }
        }
    }
    // What a linear map makes of the pixels themselves, for comparison; of faces as they are, too many pixels.
    if pixels.is_empty() {
        pixels.push(LOW.to_string());
    }
    for view in pixels {
        if downscale(&view)?.is_some() {
            add(None, &[view])?;
        }
    }
    Ok(found)
}

/// The probing of one variation.
struct Work<'a> {
    parts: &'a Assembly<'a>,
    options: &'a ProbeOptions,
    faces: &'a Faces,
    y: &'a Tensor,
    varied: &'a [(String, String)],
}

impl Work<'_> {
    fn probe(&self, Named { teacher, view, source }: Named) -> Result<Vec<Probed>> {
        let title = match &teacher {
            Some(name) => format!("teacher `{name}` on `{view}`"),
            None => format!("pixels of `{view}`"),
        };
        let varied: Vec<String> = self.varied.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        let title = format!("{title}{}", varied.concat());
        let native = self.faces.dataset.face(self.faces.indices[0])?.width();
        let maps: &[String] = if teacher.is_some() { &self.options.maps } else { &[] };
        let taps = source.taps(maps, native, self.options.values).at(|| title.clone())?;
        let mut rows = Vec::new();
        for taps in groups(taps, self.y.dim(1)?) {
            let solutions = self.solve(&source, &taps, &title).at(|| title.clone())?;
            let mapped = Mapped::new(&source, &taps, &solutions);
            for (at, (tap, solution)) in taps.iter().zip(&solutions).enumerate() {
                let name = format!("{title}, {}", tap.name());
                let one = mapped.tap(at, name.clone())?;
                let outcome = self.faces.protocol.evaluate(&one, &self.parts.context()).at(|| name.clone())?;
                let headline = outcome.headline()?;
                let headline = format!("{} {}", headline.name, headline.shown());
                let (protocol, embedder) = (self.faces.measured_by.clone(), name);
                tell(self.parts.observer(), &Event::ProtocolDone { protocol, embedder, headline })?;
                rows.push(Probed {
                    varied: self.varied.to_vec(),
                    teacher: teacher.clone(),
                    view: view.clone(),
                    output: tap.name(),
                    shape: tap.shape.clone(),
                    pooled: tap.pooled.clone(),
                    explained: solution.explained,
                    outcome,
                });
            }
        }
        Ok(rows)
    }

    /// The map of each tap, in one pass over the faces.
    fn solve(&self, source: &Source, taps: &[Tap], title: &str) -> Result<Vec<Solution>> {
        let (outputs, device) = (self.y.dim(1)?, self.parts.device());
        let sums = taps.iter().map(|tap| Moments::new(tap.values(), outputs, device).at(|| tap.name()));
        let mut sums = sums.collect::<Result<Vec<_>>>()?;
        let what = format!("{title}: features");
        for (at, indices) in self.faces.indices.chunks(BATCH).enumerate() {
            self.parts.report(&what, at * BATCH, self.faces.indices.len())?;
            let y = self.y.narrow(0, at * BATCH, indices.len())?;
            let features = source.features(&self.faces.read(indices)?, taps)?;
            for ((sums, x), tap) in sums.iter_mut().zip(&features).zip(taps) {
                sums.add(x, &y).at(|| tap.name())?;
            }
        }
        self.parts.report(&what, self.faces.indices.len(), self.faces.indices.len())?;
        let solve = |(sums, tap): (Moments, &Tap)| {
            let what = format!("{title}: map of {}", tap.name());
            sums.solve(self.options.ridge, &mut |done, all| self.parts.report(&what, done, all)).at(|| tap.name())
        };
        sums.into_iter().zip(taps).map(solve).collect()
    }
}

/// Taps whose sums fit into memory together, in their order.
fn groups(taps: Vec<Tap>, outputs: usize) -> Vec<Vec<Tap>> {
    let mut groups: Vec<Vec<Tap>> = Vec::new();
    let mut bytes = 0;
    for tap in taps {
        let needs = Moments::bytes(tap.values().min(MOST_INPUTS), outputs);
        bytes += needs;
        match groups.last_mut() {
            Some(group) if bytes <= BYTES => group.push(tap),
            _ => {
                bytes = needs;
                groups.push(vec![tap]);
            }
        }
    }
    groups
}
