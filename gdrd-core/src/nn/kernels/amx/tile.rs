//! The tile unit: eight registers of 16 rows of 64 bytes, and the product of two of them.

use std::arch::asm;
use std::marker::PhantomData;

/// Bytes of a tile of 16 rows of 32 bfloat16 values, or of 16 float32 values.
pub(super) const TILE: usize = 1024;

/// Bytes that a step of a [`TileBlock`] takes of the right factor: two tiles of 16 columns, each as its upper and its lower parts.
pub(super) const STEP: usize = 4 * TILE;

/// Rows and columns of a [`TileBlock`].
pub(super) const BLOCK: usize = 32;

/// Summands of one step.
pub(super) const DEPTH: usize = 32;

/// Some steps of a product whose factors lie step by step. Places are in bytes, and relative to those of the [`TileBlock`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// Rows 0 to 15 of the left factor, upper parts and lower parts; rows 16 to 31 likewise.
    pub(super) a: [usize; 4],
    /// The right factor.
    pub(super) b: usize,
    /// At least one.
    pub(super) steps: usize,
}

/// A block `c [32, 32]`, or `c [16, 32]`, of the product of two matrices of float32 values, each stored as two bfloat16 parts.
///
/// With `x = upper + lower` exact to about 2^-17, `a b` is made of three products, upper with upper, upper with lower and
/// lower with upper, and summed in float32.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct TileBlock<'a> {
    c: *mut f32,
    /// Bytes between rows of the block.
    c_row: usize,
    /// The left factor's rows 0 to 15, and its rows 16 to 31 where there are any.
    a: [*const u8; 2],
    /// Bytes between steps of the left factor.
    a_step: usize,
    b: *const u8,
    runs: *const Run,
    count: usize,
    /// Whether to add to what the block holds.
    add: usize,
    lives: PhantomData<&'a [Run]>,
}

/// The left factor of a [`TileBlock`]: its two halves, of which the second may be null, and the bytes between steps.
pub(super) type Left = ([*const u8; 2], usize);

impl<'a> TileBlock<'a> {
    const NONE: Self = {
        let (c, b) = (std::ptr::null_mut(), std::ptr::null());
        Self { c, c_row: 0, a: [b; 2], a_step: 0, b, runs: std::ptr::null(), count: 0, add: 0, lives: PhantomData }
    };

    /// The block whose rows lie `row` values apart from `c` on. The right factor's steps lie side by side from `b` on.
    pub(super) fn new(
        (c, row): (*mut f32, usize),
        (a, a_step): Left,
        b: *const u8,
        runs: &'a [Run],
        add: bool,
    ) -> Self {
        Self {
            c,
            c_row: 4 * row,
            a,
            a_step,
            b,
            runs: runs.as_ptr(),
            count: runs.len(),
            add: usize::from(add),
            lives: PhantomData,
        }
    }
}

/// The shape of all eight registers, in the form of `ldtilecfg`.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

static SHAPES: Shapes = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Shapes(bytes)
};

/// Computes blocks one after the other.
///
/// # Safety
/// The thread uses [`Instructions::Amx`](super::super::instructions::Instructions), all of both factors may be read, and the blocks may be read and written.
pub(super) unsafe fn multiply<'a>(mut blocks: impl Iterator<Item = TileBlock<'a>>) {
    // As many at a time as make it cheap to start the unit.
    let mut some = [TileBlock::NONE; 8];
    loop {
        let mut count = 0;
        for (place, block) in some.iter_mut().zip(blocks.by_ref()) {
            *place = block;
            count += 1;
        }
        if count == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { multiply_some(&some[..count]) };
    }
}

/// The assembly reads the fields by their places.
///
/// # Safety
/// As for [`multiply`]; there is at least one block.
unsafe fn multiply_some(blocks: &[TileBlock<'_>]) {
    const { assert!(size_of::<TileBlock<'_>>() == 72 && size_of::<Run>() == 48) };
    // SAFETY: the caller's promise. The tile registers, which the compiler does not use, are free again at the end.
    unsafe {
        asm!(
            "ldtilecfg [{line}]",
            "mov {line}, 64",
            // A block.
            "2:",
            "mov rax, [{block}]",
            "mov {step}, [{block} + 8]",
            "mov rcx, {step}",
            "shl rcx, 4",
            "add rcx, rax",
            "cmp qword ptr [{block} + 64], 0",
            "jne 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 4f",
            "3:",
            "tileloadd tmm0, [rax + {step}]",
            "tileloadd tmm1, [rax + {step} + 64]",
            "cmp qword ptr [{block} + 24], 0",
            "je 4f",
            "tileloadd tmm2, [rcx + {step}]",
            "tileloadd tmm3, [rcx + {step} + 64]",
            "4:",
            "mov {step}, [{block} + 32]",
            "mov {run}, [{block} + 48]",
            "mov {runs}, [{block} + 56]",
            "test {runs}, {runs}",
            "jz 9f",
            // A run of steps.
            "5:",
            "mov rax, [{run}]",
            "mov rcx, [{run} + 8]",
            "mov rdx, [{run} + 16]",
            "mov rsi, [{run} + 24]",
            "mov {b}, [{run} + 32]",
            "mov {steps}, [{run} + 40]",
            "add rax, [{block} + 16]",
            "add rcx, [{block} + 16]",
            "add {b}, [{block} + 40]",
            "add {run}, 48",
            "cmp qword ptr [{block} + 24], 0",
            "je 7f",
            "add rdx, [{block} + 24]",
            "add rsi, [{block} + 24]",
            // A step of 32 rows.
            "6:",
            "tileloadd tmm4, [rax + {line}]",
            "tileloadd tmm6, [{b} + {line} + 1024]",
            "tileloadd tmm5, [rdx + {line}]",
            "tileloadd tmm7, [{b} + {line} + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{b} + {line}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{b} + {line} + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [rcx + {line}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [rsi + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add rax, {step}",
            "add rcx, {step}",
            "add rdx, {step}",
            "add rsi, {step}",
            "add {b}, 4096",
            "dec {steps}",
            "jnz 6b",
            "jmp 8f",
            // A step of 16 rows. It takes as much of the right factor, and so is over as soon as that has come from memory: the
            // tiles are loaded in the order in which they lie there.
            "7:",
            "tileloadd tmm4, [rax + {line}]",
            "tileloadd tmm5, [rcx + {line}]",
            "tileloadd tmm2, [{b} + {line}]",
            "tileloadd tmm6, [{b} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm0, tmm4, tmm2",
            "tdpbf16ps tmm0, tmm5, tmm2",
            "tileloadd tmm3, [{b} + {line} + 2048]",
            "tileloadd tmm7, [{b} + {line} + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm1, tmm4, tmm3",
            "tdpbf16ps tmm1, tmm5, tmm3",
            "add rax, {step}",
            "add rcx, {step}",
            "add {b}, 4096",
            "dec {steps}",
            "jnz 7b",
            "8:",
            "dec {runs}",
            "jnz 5b",
            "9:",
            "mov rax, [{block}]",
            "mov {step}, [{block} + 8]",
            "tilestored [rax + {step}], tmm0",
            "tilestored [rax + {step} + 64], tmm1",
            "cmp qword ptr [{block} + 24], 0",
            "je 20f",
            "mov rcx, {step}",
            "shl rcx, 4",
            "add rcx, rax",
            "tilestored [rcx + {step}], tmm2",
            "tilestored [rcx + {step} + 64], tmm3",
            "20:",
            "add {block}, 72",
            "dec {blocks}",
            "jnz 2b",
            "tilerelease",
            line = inout(reg) &raw const SHAPES => _,
            block = inout(reg) blocks.as_ptr() => _,
            blocks = inout(reg) blocks.len() => _,
            run = out(reg) _,
            runs = out(reg) _,
            b = out(reg) _,
            steps = out(reg) _,
            step = out(reg) _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
