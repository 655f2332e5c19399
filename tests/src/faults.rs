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

use gdrd_core::files::{FaultInjector, FileOperation, inject_faults};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EACCES: i32 = 13;

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

/// Orders what `GDRD_FAULTS` says, if it is set.
pub fn order() {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let made = PLAN.get_or_init(|| {
        let text = std::env::var("GDRD_FAULTS").ok()?;
        let (kind, number) = text.split_once(':')?;
        let (kind, number) = (kind.to_string(), number.to_string());
        let none = || AtomicU64::new(0);
        Some(Plan { kind, number, reads: none(), writes: none(), all: none(), times: none(), lost: Mutex::default() })
    });
    if let Some(plan) = made {
        inject_faults(plan);
    }
}

impl Plan {
    fn number(&self) -> u64 {
        self.number.parse().unwrap_or(u64::MAX)
    }

    /// Counts an operation: its place among its like and among all.
    fn count(&self, op: FileOperation) -> (u64, u64) {
        let like = match op {
            FileOperation::Read => self.reads.fetch_add(1, Ordering::SeqCst),
            FileOperation::Write => self.writes.fetch_add(1, Ordering::SeqCst),
            FileOperation::Remove => u64::MAX,
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

impl FaultInjector for Plan {
    fn before(&self, op: FileOperation, path: &Path) -> Result<()> {
        let (like, all) = self.count(op);
        let number = self.number();
        let error = |code| Err(Error::from_raw_os_error(code));
        match (self.kind.as_str(), op) {
            ("full", FileOperation::Write) if like >= number => error(ENOSPC),
            ("gap", FileOperation::Write) if like == number => error(ENOSPC),
            ("torn", FileOperation::Write) if like == number => gone(),
            ("crash", _) if all == number => gone(),
            ("unreadable" | "denied", FileOperation::Read) => {
                let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                if like == number {
                    *lost = Some(path.to_path_buf());
                }
                match lost.as_deref() == Some(path) {
                    true => error(if self.kind == "denied" { EACCES } else { EIO }),
                    false => Ok(()),
                }
            }
            ("changed", FileOperation::Read) if like == number => change(path),
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

    fn before_write(&self, file: &mut dyn Write, path: &Path, bytes: &[u8]) -> Result<()> {
        let writes = self.writes.load(Ordering::SeqCst);
        if ["full", "gap", "torn"].contains(&self.kind.as_str()) && writes == self.number() {
            file.write_all(&bytes[..bytes.len() / 2])?;
            file.flush()?;
        }
        self.before(FileOperation::Write, path)
    }

    /// What the clock says, or years before or after.
    fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        if self.kind != "clock" {
            return now;
        }
        let mixed =
            (self.number() ^ self.times.fetch_add(1, Ordering::SeqCst) << 7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let jump = Duration::from_secs(mixed >> 34);
        if mixed & 1 == 0 { now.checked_add(jump) } else { now.checked_sub(jump) }.unwrap_or(now)
    }
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
