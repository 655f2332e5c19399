//! Failures of the disk and the clock on order, for tests: `GDRD_FAULTS=KIND:N` lets the N-th operation fail, counted from 0.
//!
//! | kind | counts | what happens |
//! |---|---|---|
//! | `full` | writes | the disk is full from there on: half of the bytes are written, then `ENOSPC` |
//! | `gap` | writes | the same for this one write alone |
//! | `torn` | writes | half of the bytes are written, then the process is gone |
//! | `crash` | all | the process is gone |
//! | `unreadable`, `denied` | reads | the file cannot be read from there on: `EIO`, `EACCES` |
//! | `changed` | reads | somebody has changed a byte of the file |
//! | `vanish` | all | the folder of the file has another name, `.gone` behind it |
//! | `clock` | asking for the time | every answer is years off, N decides which |
//! | `count` | - | nothing; the numbers of reads, writes and all operations are written to the file N |

use std::fs::File;
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EACCES: i32 = 13;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Remove,
}

/// What was ordered.
struct Plan {
    kind: String,
    number: String,
    reads: AtomicU64,
    writes: AtomicU64,
    all: AtomicU64,
    times: AtomicU64,
    /// The file that can no longer be read.
    lost: Mutex<Option<PathBuf>>,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

fn plan() -> Option<&'static Plan> {
    let made = PLAN.get_or_init(|| {
        let text = std::env::var("GDRD_FAULTS").ok()?;
        let (kind, number) = text.split_once(':')?;
        let (kind, number) = (kind.to_string(), number.to_string());
        let none = || AtomicU64::new(0);
        Some(Plan { kind, number, reads: none(), writes: none(), all: none(), times: none(), lost: Mutex::default() })
    });
    made.as_ref()
}

impl Plan {
    fn number(&self) -> u64 {
        self.number.parse().unwrap_or(u64::MAX)
    }

    /// Counts an operation: its place among its like and among all.
    fn count(&self, op: Op) -> (u64, u64) {
        let like = match op {
            Op::Read => self.reads.fetch_add(1, Ordering::SeqCst),
            Op::Write => self.writes.fetch_add(1, Ordering::SeqCst),
            Op::Remove => u64::MAX,
        };
        let all = self.all.fetch_add(1, Ordering::SeqCst);
        if self.kind == "count" {
            let [reads, writes, all] = [&self.reads, &self.writes, &self.all].map(|n| n.load(Ordering::SeqCst));
            // The test that counts finds no file.
            let _ = std::fs::write(&self.number, format!("{reads} {writes} {all}"));
        }
        (like, all)
    }
}

/// Ends the process as `kill -9` does.
fn gone() -> ! {
    std::process::abort()
}

/// Fails where that was ordered.
pub(super) fn strike(op: Op, path: &Path) -> Result<()> {
    let Some(plan) = plan() else { return Ok(()) };
    let (like, all) = plan.count(op);
    let number = plan.number();
    let error = |code| Err(Error::from_raw_os_error(code));
    match (plan.kind.as_str(), op) {
        ("full", Op::Write) if like >= number => error(ENOSPC),
        ("gap", Op::Write) if like == number => error(ENOSPC),
        ("torn", Op::Write) if like == number => gone(),
        ("crash", _) if all == number => gone(),
        ("unreadable" | "denied", Op::Read) => {
            let mut lost = plan.lost.lock().unwrap_or_else(PoisonError::into_inner);
            if like == number {
                *lost = Some(path.to_path_buf());
            }
            match lost.as_deref() == Some(path) {
                true => error(if plan.kind == "denied" { EACCES } else { EIO }),
                false => Ok(()),
            }
        }
        ("changed", Op::Read) if like == number => change(path),
        ("vanish", _) if all == number => {
            let runs = |folder: &&Path| folder.components().any(|part| part.as_os_str() == "runs");
            if let Some(folder) = path.parent().filter(runs) {
                let mut gone = folder.as_os_str().to_owned();
                gone.push(".gone");
                std::fs::rename(folder, gone)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The same for a write of these bytes, of which half may come to the disk.
pub(super) fn strike_write(file: &mut impl Write, path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(plan) = plan() else { return Ok(()) };
    let number = plan.number();
    let writes = plan.writes.load(Ordering::SeqCst);
    if ["full", "gap", "torn"].contains(&plan.kind.as_str()) && writes == number {
        file.write_all(&bytes[..bytes.len() / 2])?;
        file.flush()?;
    }
    strike(Op::Write, path)
}

/// Changes a byte in the middle of a file; a folder and an empty file stay.
fn change(path: &Path) -> Result<()> {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
        File::create(path)?.write_all(&bytes)?;
    }
    Ok(())
}

/// What the clock says, or years before or after.
pub(crate) fn now() -> SystemTime {
    let now = SystemTime::now();
    let Some(plan) = plan().filter(|plan| plan.kind == "clock") else { return now };
    let mixed = (plan.number() ^ plan.times.fetch_add(1, Ordering::SeqCst) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let jump = Duration::from_secs(mixed >> 34);
    if mixed & 1 == 0 { now.checked_add(jump) } else { now.checked_sub(jump) }.unwrap_or(now)
}
