//! The tile unit: eight registers of 16 rows of 64 bytes, and the product of two of them.

use std::arch::asm;
use std::sync::OnceLock;

/// Bytes of a tile of 16 rows of 32 bfloat16 values, or of 16 float32 values.
pub(super) const TILE: usize = 1024;

/// Bytes that a step of a [`Product`] takes of the right factor: two tiles of 16 columns, each as its upper and its lower parts.
pub(super) const STEP: usize = 4 * TILE;

/// Rows and columns of the block that a [`Product`] makes.
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

/// Linux gives the registers to a process that asks: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    let result: i64;
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe {
        asm!("syscall", inlateout("rax") 158i64 => result, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _,
             options(nostack));
    }
    result == 0
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
    pub(super) b: *const u8,
    /// At least one.
    pub(super) steps: usize,
}

/// What is added to a block `c [32, 32]`: the product of two matrices of float32 values, each stored as two bfloat16 parts.
///
/// With `x = upper + lower` exact to about 2^-17, `a b` is made of three products, upper with upper, upper with lower and
/// lower with upper, and summed in float32. The assembly below reads the fields by their places.
#[repr(C)]
pub(super) struct Product<'a> {
    /// The block's row 0 and row 16.
    pub(super) c: [*mut f32; 2],
    /// Bytes between rows of the block.
    pub(super) c_row: usize,
    /// Bytes between steps of the left factor.
    pub(super) a_step: usize,
    pub(super) runs: &'a [Run],
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

impl Product<'_> {
    /// Computes it.
    ///
    /// # Safety
    /// The unit is [`available`], all of both factors may be read, and the block may be read and written.
    pub(super) unsafe fn run(&self) {
        if self.runs.is_empty() {
            return;
        }
        // SAFETY: the caller's promise. The tile registers, which the compiler does not use, are free again at the end.
        unsafe {
            asm!(
                "ldtilecfg [{line}]",
                "mov {line}, 64",
                "mov rax, [rdi]",
                "mov rcx, [rdi + 8]",
                "mov r8, [rdi + 16]",
                "tileloadd tmm0, [rax + r8]",
                "tileloadd tmm1, [rax + r8 + 64]",
                "tileloadd tmm2, [rcx + r8]",
                "tileloadd tmm3, [rcx + r8 + 64]",
                "mov r9, [rdi + 24]",
                // A run.
                "4:",
                "mov rax, [{runs}]",
                "mov rcx, [{runs} + 8]",
                "mov rdx, [{runs} + 16]",
                "mov rsi, [{runs} + 24]",
                "mov {b}, [{runs} + 32]",
                "mov {steps}, [{runs} + 40]",
                "add {runs}, 48",
                // A step.
                "5:",
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
                "add rax, r9",
                "add rcx, r9",
                "add rdx, r9",
                "add rsi, r9",
                "add {b}, 4096",
                "dec {steps}",
                "jnz 5b",
                "dec {count}",
                "jnz 4b",
                "mov rax, [rdi]",
                "mov rcx, [rdi + 8]",
                "tilestored [rax + r8], tmm0",
                "tilestored [rax + r8 + 64], tmm1",
                "tilestored [rcx + r8], tmm2",
                "tilestored [rcx + r8 + 64], tmm3",
                "tilerelease",
                line = inout(reg) &raw const SHAPES => _,
                runs = inout(reg) self.runs.as_ptr() => _,
                count = inout(reg) self.runs.len() => _,
                b = out(reg) _,
                steps = out(reg) _,
                in("rdi") self,
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("r8") _, out("r9") _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}
