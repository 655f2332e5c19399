//! Rounds of faults: a short run, disturbed at random moments until it is left alone, must end as one that was never disturbed, or
//! say clearly why not. A round is a function of its seed, but for the moments at which signals arrive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gdrd_core::seed::{Seed, Stream};
use rand::Rng;

use crate::{Bench, Said, files_below, step_numbers};

/// A teacher, trained in a moment.
const TEACHER: &str = include_str!("recipes/rounds-teacher.toml");
/// A run on images, with that teacher and two stages.
const RECIPE: &str = include_str!("recipes/rounds.toml");
/// Where the run of every round is, so that equal runs have equal recipes.
const RUN: &str = "runs/round";
/// What is said of a log of steps that is another.
const LOG_CHANGED: &str = "metrics.jsonl` is not what the first";
/// A process that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// What disturbs a run, and whether its process may end without a word.
const KINDS: [(&str, bool); 13] = [
    ("full", false),
    ("gap", false),
    ("torn", true),
    ("crash", true),
    ("unreadable", false),
    ("denied", false),
    ("changed", false),
    ("vanish", false),
    ("clock", false),
    ("kill", true),
    ("memory", true),
    ("two", false),
    ("swap", false),
];

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The run went on to the bytes of the undisturbed one.
    Equal,
    /// So it did, but its log of steps had been changed: that was said, and the report shows what was left.
    Warned,
    /// A file was changed after the run was over; `gdrd verify` names it.
    Told,
    /// It was refused with a reason, and begun again with `--fresh` or in an empty folder, after which the bytes are the same.
    Refused,
}

/// A place for rounds.
pub struct Rounds {
    bench: Bench,
    program: PathBuf,
    /// What an undisturbed run leaves.
    whole: BTreeMap<String, Vec<u8>>,
    lock: serde_json::Value,
    /// The files that are not gdrd's.
    theirs: Vec<(PathBuf, Vec<u8>)>,
    /// Reads, writes and all operations of the undisturbed run.
    counts: [u64; 3],
    took: Duration,
}

impl Rounds {
    /// Makes the data and the teacher, and the run that nothing disturbs. `program` is the `gdrd` that the tests build.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let (bench, program) = (Bench::empty(), program.into());
        bench.write("teacher.toml", TEACHER);
        bench.write("r.toml", RECIPE);
        for (person, number) in (0..4).flat_map(|person| (0..4).map(move |number| (person, number))) {
            let pixel =
                |x, y| image::Rgb([40 * person as u8 + x as u8, 11 * y as u8, (60 * number + x * y % 60) as u8]);
            let path = bench.file(&format!("faces/p{person}/{number}.png"));
            std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            image::RgbImage::from_fn(16, 16, pixel).save(path).expect("an image");
        }
        let mut rounds = Self {
            bench,
            program,
            whole: BTreeMap::new(),
            lock: serde_json::Value::Null,
            theirs: Vec::new(),
            counts: [0; 3],
            took: Duration::ZERO,
        };
        Said::by(&mut rounds.gdrd(&["train", "teacher.toml", "--run-dir", "runs/teacher"])).with_code(0);
        std::fs::rename(rounds.file("runs/teacher/student.safetensors"), rounds.file("teacher.safetensors"))
            .expect("a teacher");
        rounds.clean();
        let counts = rounds.file("runs-counts");
        Said::by(rounds.train().env("GDRD_FAULTS", format!("count:{}", counts.display()))).with_code(0);
        let text = std::fs::read_to_string(&counts).expect("counts");
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().expect("a number")).collect();
        rounds.counts = numbers.try_into().expect("three counts");
        std::fs::remove_file(counts).expect("a file");
        (rounds.whole, rounds.lock) = (rounds.outcome(), rounds.locked());
        rounds.clean();
        let since = Instant::now();
        Said::by(&mut rounds.train()).with_code(0);
        rounds.took = since.elapsed();
        rounds.theirs = rounds.found();
        rounds
    }

    /// One round. What it did and how it ended; `only` is the one kind of disturbance, all of them if there is none.
    ///
    /// # Errors
    /// What went wrong, with everything that was done.
    pub fn round(&self, seed: u64, only: Option<&str>) -> (Vec<String>, Result<End, String>) {
        self.clean();
        let (mut stream, mut story) = (Seed(seed).stream("round", &[]), Vec::new());
        let disturbances = stream.random_range(1..=3);
        for _ in 0..disturbances {
            let (kind, silent) = match only {
                Some(kind) => *KINDS.iter().find(|(known, _)| *known == kind).expect("a kind"),
                None => KINDS[stream.random_range(0..KINDS.len())],
            };
            if let Err(wrong) = self.disturb(kind, silent, &mut stream, &mut story) {
                return (story, Err(wrong));
            }
        }
        let end = self.end(&mut story);
        (story, end)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.bench.file(name)
    }

    fn gdrd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(self.bench.path()).args(arguments);
        command
    }

    /// The command that goes on with the run, or begins it.
    fn train(&self) -> Command {
        match self.file(RUN).join("recipe.resolved.toml").exists() {
            true => self.gdrd(&["resume", RUN]),
            false => self.gdrd(&["train", "r.toml", "--run-dir", RUN]),
        }
    }

    /// Removes all runs.
    fn clean(&self) {
        std::fs::remove_dir_all(self.file("runs")).ok();
        for (path, bytes) in &self.theirs {
            std::fs::write(path, bytes).expect("put back");
        }
    }

    /// Every file that is not a run's.
    fn found(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let runs = self.file("runs");
        let files = files_below(self.bench.path(), "").into_iter().filter(|path| !path.starts_with(&runs));
        files.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
    }

    /// What must not depend on disturbances.
    fn outcome(&self) -> BTreeMap<String, Vec<u8>> {
        let run = self.file(RUN);
        let mut all = BTreeMap::new();
        for path in files_below(&run, "") {
            let name = path.strip_prefix(&run).expect("below").to_string_lossy().into_owned();
            let results = ["student.safetensors", "report.md", "samples.png", "recipe.resolved.toml"];
            let is_result =
                results.contains(&name.as_str()) || name.starts_with("evaluation/") || name.ends_with(".svg");
            if is_result {
                all.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
        let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        for (at, line) in log.lines().enumerate() {
            all.insert(format!("step {at}"), step_numbers(line).to_string().into_bytes());
        }
        all
    }

    /// What the run says that its numbers depend on.
    fn locked(&self) -> serde_json::Value {
        let text = std::fs::read(self.file(RUN).join("lock.json")).unwrap_or_default();
        let lock: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        serde_json::json!([lock["teachers"], lock["data"], lock["protocols"], lock["views"], lock["recipe"]])
    }

    fn disturb(&self, kind: &str, silent: bool, stream: &mut Stream, story: &mut Vec<String>) -> Result<(), String> {
        let [reads, writes, all] = self.counts;
        let number = match kind {
            "full" | "gap" | "torn" => stream.random_range(0..writes),
            "unreadable" | "denied" | "changed" => stream.random_range(0..reads),
            "crash" | "vanish" => stream.random_range(0..all),
            "clock" => stream.random(),
            // Megabytes of address space.
            "memory" => stream.random_range(30..1500),
            // Thousandths of the time that a run takes.
            _ => stream.random_range(0..1000),
        };
        let moment = self.took * (number % 1000) as u32 / 1000;
        let back = stream.random::<bool>();
        let mut command = self.train();
        story.push(format!("{kind}:{number}"));
        let said = match kind {
            "kill" => {
                let mut child = start(&mut command);
                std::thread::sleep(moment);
                // It may be over.
                child.kill().ok();
                end_of(child)?
            }
            "memory" => {
                let mut limited = Command::new("sh");
                let limit = (number * 1024).to_string();
                limited.current_dir(self.bench.path()).args(["-c", "ulimit -v $0; exec \"$@\"", &limit]);
                limited.arg(command.get_program()).args(command.get_args());
                end_of(start(&mut limited))?
            }
            "two" => {
                let one = start(&mut command);
                std::thread::sleep(moment / 4);
                let other = end_of(start(&mut self.train()));
                let one = end_of(one);
                self.judge(&other?, false, story)?;
                one?
            }
            "swap" => {
                let (path, _) = &self.theirs[stream.random_range(0..self.theirs.len())];
                let mut child = start(&mut command);
                // Before its lock is written a run is honestly one of other data.
                while !self.file(RUN).join("lock.json").exists() && child.try_wait().is_ok_and(|ended| ended.is_none())
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(moment / 2);
                let mut bytes = std::fs::read(path).expect("a file");
                bytes.reverse();
                std::fs::write(path, bytes).expect("swapped");
                end_of(child)?
            }
            _ => end_of(start(command.env("GDRD_FAULTS", format!("{kind}:{number}"))))?,
        };
        self.judge(&said, silent, story)?;
        self.put_back(kind, back, story)
    }

    /// Whether a process ended as it may.
    fn judge(&self, said: &Said, silent: bool, story: &mut Vec<String>) -> Result<(), String> {
        let last = said.stderr.trim_end().rsplit('\r').next().unwrap_or_default();
        let error = last.lines().find(|line| line.starts_with("error")).unwrap_or_default();
        story.push(format!("  {:?} {error}", said.code));
        story.extend(said.stderr.contains(LOG_CHANGED).then(|| format!("  {LOG_CHANGED}")));
        let good = match said.code {
            Some(0) => true,
            Some(1 | 2) => said.stderr.contains("error: "),
            None => silent,
            _ => false,
        };
        match good && !said.stderr.contains("panicked") {
            true => Ok(()),
            false => Err(format!("the process ended wrongly: {said:#?}")),
        }
    }

    /// Ends a disturbance: files of the user's are what they were, and what had vanished comes back if `back`.
    fn put_back(&self, kind: &str, back: bool, story: &mut Vec<String>) -> Result<(), String> {
        let mut folders: Vec<PathBuf> = gone(self.bench.path());
        folders.sort();
        for folder in folders {
            let name = folder.with_extension("");
            match back && !name.exists() {
                true => std::fs::rename(&folder, &name).expect("back again"),
                false => std::fs::remove_dir_all(&folder).expect("gone for good"),
            }
            story.push(format!("  `{}` {}", name.display(), if back { "is back" } else { "stays away" }));
        }
        let meant = ["swap", "changed"].contains(&kind);
        let found = self.found();
        let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        if names(&found) != names(&self.theirs) || !meant && found != self.theirs {
            return Err("files of the user's were touched".into());
        }
        for (path, bytes) in &self.theirs {
            std::fs::write(path, bytes).expect("put back");
        }
        Ok(())
    }

    /// Lets the run go on undisturbed.
    fn end(&self, story: &mut Vec<String>) -> Result<End, String> {
        let said = end_of(start(&mut self.train()))?;
        self.judge(&said, false, story)?;
        let mut end = End::Equal;
        if said.code != Some(0) || self.locked() != self.lock {
            end = End::Refused;
            let fresh = end_of(start(&mut self.gdrd(&["train", "r.toml", "--run-dir", RUN, "--fresh"])))?;
            self.judge(&fresh, false, story)?;
            if fresh.code != Some(0) {
                std::fs::remove_dir_all(self.file(RUN)).ok();
                let anew = end_of(start(&mut self.train()))?;
                self.judge(&anew, false, story)?;
            }
        }
        let outcome = self.outcome();
        let mut names: Vec<&String> = self.whole.keys().chain(outcome.keys()).collect();
        names.sort();
        names.retain(|name| self.whole.get(*name) != outcome.get(*name));
        if story.iter().any(|line| line.contains(LOG_CHANGED)) {
            end = End::Warned;
            let of_log = |name: &str| ["step ", "loss-", "report"].iter().any(|start| name.starts_with(start));
            names.retain(|name| !of_log(name));
        }
        let verified = Said::by(&mut self.gdrd(&["verify", RUN]));
        if let Some(name) = names.first() {
            // What was changed behind the back of a run that is over stays so until somebody asks.
            let told =
                |name: &&String| verified.stdout.lines().any(|l| l.contains("WRONG") && l.contains(name.as_str()));
            return match names.iter().all(told) {
                true => Ok(End::Told),
                false => Err(format!("`{name}` is not that of the undisturbed run")),
            };
        }
        let wrong = |line: &&str| line.contains("WRONG");
        let log_alone = verified.stdout.lines().filter(wrong).all(|line| line.starts_with("| metrics.jsonl"));
        match verified.code {
            Some(0) => Ok(end),
            Some(1) if end == End::Warned && log_alone => Ok(end),
            Some(1) if story.iter().any(|line| line.starts_with("changed:")) => Ok(End::Told),
            _ => Err(format!("`gdrd verify` is not content: {verified:#?}")),
        }
    }
}

/// Folders that have vanished, below `folder`.
fn gone(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true if path.extension().is_some_and(|extension| extension == "gone") => found.push(path),
            true => found.extend(gone(&path)),
            false => {}
        }
    }
    found
}

fn start(command: &mut Command) -> Child {
    // Where memory ends while the standard library prints the trace of a panic, it waits for itself for ever.
    command
        .env_remove("RUST_BACKTRACE")
        .env("RAYON_NUM_THREADS", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gdrd starts")
}

/// How a process ends, which it must in time. It says too little to fill a pipe.
fn end_of(mut child: Child) -> Result<Said, String> {
    let since = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        if since.elapsed() > LONGEST {
            child.kill().ok();
            let said = Said::from(child.wait_with_output().expect("an end"));
            return Err(format!("it hangs: {said:#?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Said::from(child.wait_with_output().expect("an end")))
}
