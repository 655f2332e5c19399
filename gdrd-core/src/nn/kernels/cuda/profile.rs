//! Where a GPU's time goes. With the environment variable `GDRD_CUDA_PROFILE`, a path, events stand around every launch of this
//! module; the sums over the last few thousand are written there, again and again.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, sys};

/// Launches that a file tells of.
const LAUNCHES: usize = 2000;

static PATH: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("GDRD_CUDA_PROFILE").map(PathBuf::from));
/// Name, begin and end of launches that are not yet written.
static OPEN: Mutex<Vec<(String, CudaEvent, CudaEvent)>> = Mutex::new(Vec::new());

/// One launch, from when it is made to when it is dropped.
pub(super) struct Span {
    name: String,
    stream: Arc<CudaStream>,
    begin: CudaEvent,
}

/// A launch of `name` on `stream`; nothing unless a profile is wanted.
pub(super) fn span(stream: &Arc<CudaStream>, name: impl FnOnce() -> String) -> Option<Span> {
    PATH.as_ref()?;
    let begin = event(stream)?;
    Some(Span { name: name(), stream: stream.clone(), begin })
}

fn event(stream: &Arc<CudaStream>) -> Option<CudaEvent> {
    stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).ok()
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(end), Some(path)) = (event(&self.stream), PATH.as_ref()) else { return };
        let Some(begin) = event(&self.stream).map(|fresh| std::mem::replace(&mut self.begin, fresh)) else { return };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.push((std::mem::take(&mut self.name), begin, end));
        if open.len() < LAUNCHES {
            return;
        }
        let between = |begin: &CudaEvent, end: &CudaEvent| f64::from(begin.elapsed_ms(end).unwrap_or(f32::NAN));
        let whole = between(&open[0].1, &open[LAUNCHES - 1].2);
        let mut all: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for (name, begin, end) in open.drain(..) {
            let entry = all.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1 + between(&begin, &end));
        }
        let mut rows: Vec<_> = all.iter().collect();
        rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let spent: f64 = rows.iter().map(|row| row.1.1).sum();
        let mut text = format!("{whole:.1} ms from the first launch to the last, {spent:.1} ms in launches\n");
        for (name, (count, milliseconds)) in rows {
            let each = 1e3 * milliseconds / *count as f64;
            let _ = writeln!(text, "{milliseconds:10.2} ms {count:7} x {each:9.1} us  {name}");
        }
        // A measurement that cannot be written is missed by who asked for it.
        let _ = std::fs::write(path, text);
    }
}
