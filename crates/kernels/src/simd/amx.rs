//! AMX: eight tile registers of 16 rows of 64 bytes. `std::arch` does not have it in stable Rust, so the few
//! instructions are written as assembly, in [`gemm_amx`](super::gemm_amx); here is what they need around them.
//!
//! A process must ask Linux for the tile registers, once for all its threads, because they make the state that is
//! saved at each switch 8 KiB larger. Each use configures the tiles and releases them again, so that nothing is saved
//! while they are idle.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::LazyLock;

/// Rows of a tile register.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a row.
pub(super) const ROW_BYTES: usize = 64;

/// The operand of `LDTILECFG` (Intel's Architecture Instruction Set Extensions, "Intel AMX").
#[repr(C, align(64))]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Tile `i` has `rows[i]` rows of 64 bytes; where that is 0, it is not used.
    pub(super) const fn of(rows: [usize; 8]) -> Self {
        let mut shapes =
            Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < 8 {
            assert!(rows[i] <= TILE_ROWS);
            if rows[i] > 0 {
                shapes.rows[i] = rows[i] as u8;
                shapes.row_bytes[i] = ROW_BYTES as u16;
            }
            i += 1;
        }
        shapes
    }
}

/// Does the processor have tiles with bf16 products, and may this process use them?
pub(super) fn allowed() -> bool {
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| present() && permitted());
    *ALLOWED
}

/// `CPUID` leaf 7: AMX-BF16 is bit 22 of EDX, AMX-TILE bit 24. The system saves the tiles if `XCR0` has bits 17 and 18.
fn present() -> bool {
    const AMX: u32 = 1 << 22 | 1 << 24;
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u64 = 1 << 17 | 1 << 18;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 || __cpuid_count(7, 0).edx & AMX != AMX {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction exists and that the system has enabled it.
    unsafe { saved() & TILES == TILES }
}

/// # Safety
/// The processor has XSAVE, and the system has enabled it.
#[target_feature(enable = "xsave")]
unsafe fn saved() -> u64 {
    // SAFETY: register 0 exists wherever XSAVE is enabled, by the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks for the tile registers: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`, Linux 5.16 and newer.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call that reads and writes no memory; it changes rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}
