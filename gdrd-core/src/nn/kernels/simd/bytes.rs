//! Products of whole numbers of 8 bits, summed exactly in 32 bits: whatever unit computes them, the sums are the same.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use super::{Instructions, Portable, Simd};

/// Vectors of sums, one for each lane of `Floats`.
pub(in super::super) trait ByteSimd: Copy {
    /// The vectors of float32 values that sums become.
    type Floats: Simd;
    /// Whole numbers of 32 bits.
    type Sums: Copy;
    /// Four values from 0 to 255, the same in all lanes.
    type Left: Copy;
    /// Four values from -127 to 127 in each lane.
    type Right: Copy;

    /// The vectors of float32 values.
    fn floats(self) -> Self::Floats;
    /// Zeros.
    fn none(self) -> Self::Sums;
    /// Four values.
    ///
    /// # Safety
    /// They may be read.
    unsafe fn left(self, from: *const u8) -> Self::Left;
    /// Four values of each lane, lane by lane.
    ///
    /// # Safety
    /// They may be read.
    unsafe fn right(self, from: *const i8) -> Self::Right;
    /// `sums` and, in each lane, the four products.
    fn dot(self, sums: Self::Sums, left: Self::Left, right: Self::Right) -> Self::Sums;
    /// Sums to `to`, as they are.
    ///
    /// # Safety
    /// A value for each lane may be written.
    unsafe fn store(self, to: *mut f32, sums: Self::Sums);
    /// What [`store`](Self::store) wrote to `sums`, minus `less`, as float32.
    ///
    /// # Safety
    /// A number for each lane may be read from both.
    unsafe fn difference(self, sums: *const f32, less: *const i32) -> <Self::Floats as Simd>::V;
    /// `factor * value + zero`, rounded to the nearest whole number, the even one of two, for as many values as there are lanes; all
    /// results are from 0 to 255.
    ///
    /// # Safety
    /// The values may be read and the results written.
    unsafe fn round(self, from: *const f32, factor: f32, zero: i32, to: *mut u8);
}

/// Something to run with such vectors.
pub(in super::super) trait ByteKernel {
    /// Runs it. Implementations are `inline(always)`.
    fn run<S: ByteSimd>(self, simd: S);
}

/// What multiplies bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ByteUnit {
    /// What every processor has.
    Portable,
    /// AVX2: pairs of 16 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-VNNI: vectors of 256 bits.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl ByteUnit {
    /// The best that this processor has for the thread's [`Instructions`].
    #[cfg(target_arch = "x86_64")]
    pub(in super::super) fn now() -> Self {
        match Instructions::now() {
            Instructions::Portable => Self::Portable,
            Instructions::Avx512 | Instructions::Amx if Self::Avx512Vnni.is_here() => Self::Avx512Vnni,
            _ if Self::AvxVnni.is_here() => Self::AvxVnni,
            _ => Self::Avx2,
        }
    }

    /// The best that this processor has for the thread's [`Instructions`].
    #[cfg(not(target_arch = "x86_64"))]
    pub(in super::super) fn now() -> Self {
        debug_assert_eq!(Instructions::now(), Instructions::Portable);
        Self::Portable
    }

    /// Whether this processor has it.
    pub(in super::super) fn is_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Instructions::detected() >= Instructions::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_here() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Instructions::detected() >= Instructions::Avx512 && is_x86_feature_detected!("avx512vnni")
            }
        }
    }

    /// The lanes of its vectors.
    pub(in super::super) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => 16,
            _ => 8,
        }
    }

    /// Runs `kernel` with it.
    ///
    /// # Panics
    /// If the processor does not have it.
    pub(in super::super) fn run(self, kernel: impl ByteKernel) {
        assert!(self.is_here(), "{self:?} is not here");
        match self {
            Self::Portable => kernel.run(Portable),
            // SAFETY: the processor has the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { with_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => unsafe { with_avx_vnni(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { with_avx512_vnni(kernel) },
        }
    }
}

impl ByteSimd for Portable {
    type Floats = Self;
    type Sums = [i32; 8];
    type Left = [u8; 4];
    type Right = [[i8; 4]; 8];

    #[inline(always)]
    fn floats(self) -> Self {
        self
    }

    #[inline(always)]
    fn none(self) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    unsafe fn left(self, from: *const u8) -> [u8; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn right(self, from: *const i8) -> Self::Right {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::Right>().read_unaligned() }
    }

    #[inline(always)]
    fn dot(self, sums: [i32; 8], left: [u8; 4], right: Self::Right) -> [i32; 8] {
        let of = |lane: usize| (0..4).map(|at| i32::from(left[at]) * i32::from(right[lane][at])).sum::<i32>();
        std::array::from_fn(|lane| sums[lane] + of(lane))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, sums: [i32; 8]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[i32; 8]>().write_unaligned(sums) }
    }

    #[inline(always)]
    unsafe fn difference(self, sums: *const f32, less: *const i32) -> [f32; 8] {
        // SAFETY: the caller's promise.
        let (sums, less) =
            unsafe { (sums.cast::<[i32; 8]>().read_unaligned(), less.cast::<[i32; 8]>().read_unaligned()) };
        std::array::from_fn(|lane| (sums[lane] - less[lane]) as f32)
    }

    #[inline(always)]
    unsafe fn round(self, from: *const f32, factor: f32, zero: i32, to: *mut u8) {
        for at in 0..8 {
            // SAFETY: the caller's promise.
            unsafe { *to.add(at) = ((factor * *from.add(at)).round_ties_even() as i32 + zero) as u8 };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2(kernel: impl ByteKernel) {
    kernel.run(Bytes256::<false>);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn with_avx_vnni(kernel: impl ByteKernel) {
    kernel.run(Bytes256::<true>);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn with_avx512_vnni(kernel: impl ByteKernel) {
    kernel.run(Bytes512);
}

/// Exists only within `with_avx2`, and with `VNNI` within `with_avx_vnni`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Bytes256<const VNNI: bool>;

/// Exists only within `with_avx512_vnni`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Bytes512;

#[cfg(target_arch = "x86_64")]
impl<const VNNI: bool> ByteSimd for Bytes256<VNNI> {
    type Floats = Avx2;
    type Sums = __m256i;
    /// The bytes; without VNNI the even ones and the odd ones as 16 bits.
    type Left = [__m256i; 2];
    type Right = [__m256i; 2];

    #[inline(always)]
    fn floats(self) -> Avx2 {
        Avx2
    }

    #[inline(always)]
    fn none(self) -> __m256i {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn left(self, from: *const u8) -> [__m256i; 2] {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let bytes = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            if VNNI {
                return [bytes; 2];
            }
            [_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(bytes)]
        }
    }

    #[inline(always)]
    unsafe fn right(self, from: *const i8) -> [__m256i; 2] {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let bytes = _mm256_loadu_si256(from.cast());
            if VNNI {
                return [bytes; 2];
            }
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
        }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, left: [__m256i; 2], right: [__m256i; 2]) -> __m256i {
        // SAFETY: as above.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(sums, left[0], right[0]);
            }
            let (even, odd) = (_mm256_madd_epi16(left[0], right[0]), _mm256_madd_epi16(left[1], right[1]));
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, sums: __m256i) {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm256_storeu_si256(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn difference(self, sums: *const f32, less: *const i32) -> __m256 {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let (sums, less) = (_mm256_loadu_si256(sums.cast()), _mm256_loadu_si256(less.cast()));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, less))
        }
    }

    #[inline(always)]
    unsafe fn round(self, from: *const f32, factor: f32, zero: i32, to: *mut u8) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let scaled = _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_loadu_ps(from));
            let whole = _mm256_add_epi32(_mm256_cvtps_epi32(scaled), _mm256_set1_epi32(zero));
            // The lowest byte of each word, four of each half.
            let lowest = _mm256_set1_epi32(0x0c08_0400);
            let bytes = _mm256_shuffle_epi8(whole, lowest);
            to.cast::<i32>().write_unaligned(_mm256_extract_epi32::<0>(bytes));
            to.add(4).cast::<i32>().write_unaligned(_mm256_extract_epi32::<4>(bytes));
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl ByteSimd for Bytes512 {
    type Floats = Avx512;
    type Sums = __m512i;
    type Left = __m512i;
    type Right = __m512i;

    #[inline(always)]
    fn floats(self) -> Avx512 {
        Avx512
    }

    #[inline(always)]
    fn none(self) -> __m512i {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn left(self, from: *const u8) -> __m512i {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn right(self, from: *const i8) -> __m512i {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, left, right) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, sums: __m512i) {
        // SAFETY: as above, and the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), sums) }
    }

    #[inline(always)]
    unsafe fn difference(self, sums: *const f32, less: *const i32) -> __m512 {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let (sums, less) = (_mm512_loadu_si512(sums.cast()), _mm512_loadu_si512(less.cast()));
            _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, less))
        }
    }

    #[inline(always)]
    unsafe fn round(self, from: *const f32, factor: f32, zero: i32, to: *mut u8) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_set1_ps(factor), _mm512_loadu_ps(from));
            let whole = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(zero));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(whole));
        }
    }
}
