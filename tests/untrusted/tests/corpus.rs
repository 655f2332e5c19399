//! The committed corpus on every reader: no panic, no hang, no more memory than its bound.

use std::path::Path;
use std::time::{Duration, Instant};

use gdrd_untrusted::TARGETS;
use peak_alloc::PeakAlloc;

#[global_allocator]
static METER: PeakAlloc = PeakAlloc;

/// For one input, on a machine that has other things to do.
const SLOW: Duration = Duration::from_secs(20);

/// One test, because the allocator counts for the whole process.
#[test]
fn the_corpus_is_read_within_its_bounds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let entries =
            std::fs::read_dir(corpus.join(target.name)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
        let mut inputs: Vec<_> = entries.map(|entry| entry.expect("an input").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "`{}` has no corpus", target.name);
        // What is made once, such as a registry, is no input's.
        (target.read)(b"");
        for path in &inputs {
            let bytes = std::fs::read(path).expect("an input");
            let since = Instant::now();
            target.run(&bytes, &METER);
            assert!(since.elapsed() < SLOW, "{} takes {:?}", path.display(), since.elapsed());
        }
    }
}
