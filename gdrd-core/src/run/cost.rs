//! What training costs: processor time and memory, as the log of steps says.

use std::time::Duration;

use cpu_time::ProcessTime;
use serde_json::Value;

use super::folder::RunFolder;
use crate::error::Result;

/// The keys of the log.
const SECONDS: &str = "processor_seconds";
const PREPARATION: &str = "preparation_seconds";
const PEAK: &str = "peak_bytes";

/// What a run's steps cost. What comes before the first step of a stage is not in it, such as the features of teachers, which runs
/// share, nor are evaluation and report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Seconds of all processors together, in the program and in the system.
    pub processor_seconds: f64,
    /// The most memory that the process held while it trained, in bytes; none where the system does not say (it is Linux that does).
    pub peak_bytes: Option<u64>,
}

/// Measures from line to line of the log. It measures the process: of runs side by side in one process, each has the sum.
pub(super) struct Meter {
    since: Duration,
    /// What was spent before the stage that has begun.
    preparation: Option<Duration>,
}

impl Meter {
    /// Begins here. The peak of memory begins anew, at what the process holds now.
    pub(super) fn new() -> Self {
        // Where the system forbids it, the peak is that of the process from its beginning.
        if cfg!(target_os = "linux") {
            std::fs::write("/proc/self/clear_refs", "5").ok();
        }
        Self { since: processor_time(), preparation: None }
    }

    /// A stage begins: what was spent since the line before was for its preparation.
    pub(super) fn stage_begins(&mut self) {
        let now = processor_time();
        self.preparation = Some(now.saturating_sub(self.since));
        self.since = now;
    }

    /// Adds to a line what was spent since the line before, and the peak so far.
    pub(super) fn read_into(&mut self, line: &mut Value) {
        let now = processor_time();
        line[SECONDS] = (now.saturating_sub(self.since)).as_secs_f64().into();
        self.since = now;
        if let Some(preparation) = self.preparation.take() {
            line[PREPARATION] = preparation.as_secs_f64().into();
        }
        if let Some(peak) = peak_bytes() {
            line[PEAK] = peak.into();
        }
    }
}

fn processor_time() -> Duration {
    ProcessTime::try_now().map_or(Duration::ZERO, |time| time.as_duration())
}

/// The process's peak of resident memory.
fn peak_bytes() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}

impl RunFolder {
    /// What its training cost; none of a run that an older gdrd made. A run that was resumed has the sum of its parts.
    ///
    /// # Errors
    /// If the log of steps cannot be read.
    pub fn cost(&self) -> Result<Option<Cost>> {
        Ok(of_log(&self.metrics()?))
    }
}

fn of_log(lines: &[Value]) -> Option<Cost> {
    let seconds = lines.iter().map(|line| line[SECONDS].as_f64()).sum::<Option<f64>>()?;
    let peaks = lines.iter().map(|line| line[PEAK].as_u64()).collect::<Option<Vec<u64>>>();
    let peak_bytes = peaks.and_then(|peaks| peaks.into_iter().max());
    (!lines.is_empty()).then_some(Cost { processor_seconds: seconds, peak_bytes })
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_log_gives_the_sum_of_its_seconds_and_its_highest_peak() {
        let line = |seconds: f64, peak: u64| json!({"step": 1, "processor_seconds": seconds, "peak_bytes": peak});
        let cost = of_log(&[line(1.5, 30), line(0.25, 70), line(0.25, 50)]);
        assert_eq!(cost, Some(Cost { processor_seconds: 2.0, peak_bytes: Some(70) }));
        let elsewhere = of_log(&[json!({"processor_seconds": 1.0})]);
        assert_eq!(elsewhere, Some(Cost { processor_seconds: 1.0, peak_bytes: None }));
        assert_eq!(of_log(&[line(1.5, 30), json!({"step": 2})]), None);
        assert_eq!(of_log(&[]), None);
    }

    #[test]
    fn work_and_memory_are_seen() {
        let mut meter = Meter::new();
        let (mut first, mut second) = (json!({}), json!({}));
        meter.read_into(&mut first);
        let held = black_box(vec![1u8; 64 << 20]);
        let begun = ProcessTime::now();
        while begun.elapsed() < Duration::from_millis(30) {
            black_box(held.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        meter.read_into(&mut second);
        let mut third = json!({});
        meter.stage_begins();
        meter.read_into(&mut third);
        assert!(third[PREPARATION].is_number() && first[PREPARATION].is_null(), "{third}");
        assert!(second[SECONDS].as_f64().is_some_and(|seconds| seconds >= 0.02), "{second}");
        if cfg!(target_os = "linux") {
            assert!(second[PEAK].as_u64().is_some_and(|peak| peak >= 64 << 20), "{second}");
        }
    }
}
