//! The tile unit: eight registers of 16 rows of 64 bytes, and the product of two of them.

use std::arch::asm;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Bytes of a tile of 16 rows of 32 bfloat16 values, or of 16 float32 values.
pub(super) const TILE: usize = 1024;

/// Bytes that a step of a [`Block`] takes of the right factor: two tiles of 16 columns, each as its upper and its lower parts.
pub(super) const STEP: usize = 4 * TILE;

/// Rows and columns of a [`Block`].
pub(super) const BLOCK: usize = 32;

/// Summands of one step.
pub(super) const DEPTH: usize = 32;

/// Whether the processor has the unit and the system lets this process use it.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| exists() && std::env::var_os("GDRD_NO_AMX").is_none() && permitted())
}

fn exists() -> bool {
    let vectors = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512bf16");
    // Leaf 7, register EDX: AMX-BF16 is bit 22, AMX-TILE bit 24.
    let found = || std::arch::x86_64::__cpuid_count(7, 0).edx & (1 << 22 | 1 << 24);
    vectors && found() == (1 << 22 | 1 << 24)
}

/// Linux gives the registers to a process that asks.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Some steps of a product whose factors lie step by step.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// Rows 0 to 15 of the left factor, upper parts and lower parts; rows 16 to 31 likewise.
    pub(super) a: [*const u8; 4],
    /// Bytes from the right factor's first to its first of these steps.
    pub(super) b: usize,
    /// At least one.
    pub(super) steps: usize,
}

/// A block `c [32, 32]` of the product of two matrices of float32 values, each stored as two bfloat16 parts.
///
/// With `x = upper + lower` exact to about 2^-17, `a b` is made of three products, upper with upper, upper with lower and
/// lower with upper, and summed in float32.
#[repr(C)]
pub(super) struct Block<'a> {
    /// The block's row 0 and row 16.
    c: [*mut f32; 2],
    /// Bytes between rows of the block.
    c_row: usize,
    /// Bytes between steps of the left factor.
    a_step: usize,
    b: *const u8,
    runs: *const Run,
    count: usize,
    /// Whether to add to what the block holds.
    add: usize,
    lives: PhantomData<&'a [Run]>,
}

impl<'a> Block<'a> {
    /// The block whose rows lie `row` values apart from `c` on; the left factor's steps lie `a_step` bytes apart, and the right
    /// factor's from `b` on.
    pub(super) fn new((c, row): (*mut f32, usize), a_step: usize, b: *const u8, runs: &'a [Run], add: bool) -> Self {
        Self {
            c: [c, c.wrapping_add(16 * row)],
            c_row: 4 * row,
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

/// Computes blocks one after the other. The assembly reads their fields by their places.
///
/// # Safety
/// The unit is [`available`], all of both factors may be read, and the blocks may be read and written.
pub(super) unsafe fn multiply(blocks: &mut Vec<Block<'_>>) {
    blocks.retain(|block| {
        if block.count == 0 && block.add == 0 {
            for row in 0..BLOCK {
                // SAFETY: the caller's promise.
                unsafe { block.c[0].byte_add(row * block.c_row).write_bytes(0, BLOCK) };
            }
        }
        block.count > 0
    });
    if blocks.is_empty() {
        return;
    }
    // SAFETY: the caller's promise. The tile registers, which the compiler does not use, are free again at the end.
    unsafe {
        asm!(
            "ldtilecfg [{line}]",
            "mov {line}, 64",
            // A block.
            "2:",
            "mov {a_step}, [{block} + 16]",
            "cmp qword ptr [{block} + 56], 0",
            "jne 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 4f",
            "3:",
            "mov rax, [{block}]",
            "mov rcx, [{block} + 8]",
            "tileloadd tmm0, [rax + {a_step}]",
            "tileloadd tmm1, [rax + {a_step} + 64]",
            "tileloadd tmm2, [rcx + {a_step}]",
            "tileloadd tmm3, [rcx + {a_step} + 64]",
            "4:",
            "mov {a_step}, [{block} + 24]",
            "mov {run}, [{block} + 40]",
            "mov {runs}, [{block} + 48]",
            // A run of steps.
            "5:",
            "mov rax, [{run}]",
            "mov rcx, [{run} + 8]",
            "mov rdx, [{run} + 16]",
            "mov rsi, [{run} + 24]",
            "mov {b}, [{run} + 32]",
            "mov {steps}, [{run} + 40]",
            "add {b}, [{block} + 32]",
            "add {run}, 48",
            // A step.
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
            "add rax, {a_step}",
            "add rcx, {a_step}",
            "add rdx, {a_step}",
            "add rsi, {a_step}",
            "add {b}, 4096",
            "dec {steps}",
            "jnz 6b",
            "dec {runs}",
            "jnz 5b",
            "mov rax, [{block}]",
            "mov rcx, [{block} + 8]",
            "mov {a_step}, [{block} + 16]",
            "tilestored [rax + {a_step}], tmm0",
            "tilestored [rax + {a_step} + 64], tmm1",
            "tilestored [rcx + {a_step}], tmm2",
            "tilestored [rcx + {a_step} + 64], tmm3",
            "add {block}, 64",
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
            a_step = out(reg) _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    blocks.clear();
}
