//! What the processor says about its caches.

use std::sync::LazyLock;

/// Bytes of a core's second-level cache; 1 MiB where the processor does not say.
pub(crate) fn second_level_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| match detected() {
        0 => 1 << 20,
        // Hypervisors have been seen to pass on nonsense.
        bytes => bytes.clamp(256 << 10, 4 << 20),
    });
    *BYTES
}

/// `CPUID` leaf 0x8000_0006, which AMD and Intel fill alike: kilobytes in the upper half of ECX.
#[cfg(target_arch = "x86_64")]
fn detected() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0006;
    if __cpuid(0x8000_0000).eax < LEAF {
        return 0;
    }
    (__cpuid(LEAF).ecx >> 16) as usize * 1024
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> usize {
    0
}
