//! What the fuzz targets share: each runs one reader of `gdrd-untrusted` under its bound of memory.

pub use gdrd_untrusted::{Target, named};
pub use libfuzzer_sys::fuzz_target;
pub use peak_alloc::PeakAlloc;

/// A fuzz target for the reader of this name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        #[global_allocator]
        static METER: $crate::PeakAlloc = $crate::PeakAlloc;
        static TARGET: std::sync::LazyLock<$crate::Target> = std::sync::LazyLock::new(|| $crate::named($name));

        $crate::fuzz_target!(|bytes: &[u8]| {
            TARGET.run(bytes, &METER);
        });
    };
}
