//! Instruction sets: which one this machine has, and running code compiled for it.
//!
//! A witness ([`Avx512`], [`Avx2`]) can only be made by detection, so holding one proves that the instructions exist;
//! that is the reason behind every `unsafe` block of this folder, and the reason why operation folders need none.

#![allow(unsafe_code)]

/// The AVX-512 instructions: those of the machine, or their emulation.
#[cfg(target_arch = "x86_64")]
mod arch {
    #[cfg(feature = "emulate-avx512")]
    pub(super) use super::emulated_avx512::*;
    #[cfg(not(feature = "emulate-avx512"))]
    pub(super) use std::arch::x86_64::*;
    #[cfg(feature = "emulate-avx512")]
    pub(super) use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
}
#[cfg(target_arch = "x86_64")]
#[cfg_attr(feature = "emulate-avx512", allow(dead_code))]
mod amx;
pub(crate) mod cache;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot_bf16;
#[cfg(all(target_arch = "x86_64", feature = "emulate-avx512"))]
mod emulated_avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod expand_bf16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_bf16;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_f32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_f32_avx2;
pub(crate) mod matrix;
#[cfg(target_arch = "x86_64")]
pub(crate) mod nf4;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pack;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pack_avx2;
pub mod peak;
#[cfg(target_arch = "x86_64")]
pub(crate) mod softmax_bf16;
#[cfg(target_arch = "x86_64")]
mod store;
#[cfg(target_arch = "x86_64")]
mod store_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile_bf16;
#[cfg(target_arch = "x86_64")]
mod weight_row;

/// Proof that the machine has AVX-512 F, BW, VL, DQ and BF16 (and AVX2, FMA), or that the former are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

/// Proof that the machine has AMX with bf16 products, that the system lets this process use it, and AVX-512 as in
/// [`Avx512`]; or that all are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx(Avx512);

impl Amx {
    /// What was detected with AMX.
    pub fn avx512(self) -> Avx512 {
        self.0
    }
}

/// Proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx512 {
    /// What was detected with AVX-512.
    pub fn avx2(self) -> Avx2 {
        Avx2(())
    }
}

/// The instruction set a CPU backend uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AMX tiles for products of bf16, AVX-512 for everything else.
    Amx(Amx),
    /// AVX-512 with bf16 dot products.
    Avx512(Avx512),
    /// AVX2 and FMA.
    Avx2(Avx2),
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Isa {
    /// Every instruction set of this machine, best first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if cfg!(not(feature = "emulate-avx512"))
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bf16")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
            {
                let avx512 = Avx512(());
                if amx::allowed() {
                    found.push(Isa::Amx(Amx(avx512)));
                }
                found.push(Isa::Avx512(avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Isa::Avx2(Avx2(())));
                // Last of the fast ones: a build for tests must not choose an emulation for anything else.
                if cfg!(feature = "emulate-avx512") {
                    found.push(Isa::Amx(Amx(Avx512(()))));
                    found.push(Isa::Avx512(Avx512(())));
                }
            }
        }
        found.push(Isa::Portable);
        found
    }

    /// The best instruction set of this machine.
    pub fn detect() -> Isa {
        Self::available()[0]
    }

    /// Name in messages and in the forcing environment variable: `amx`, `avx512`, `avx2`, `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx(_) => "amx",
            Isa::Avx512(_) => "avx512",
            Isa::Avx2(_) => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// The available instruction set of that name.
    pub fn named(name: &str) -> Option<Isa> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// The AVX-512 instructions, if this set includes them.
    pub fn avx512(self) -> Option<Avx512> {
        match self {
            Isa::Amx(witness) => Some(witness.avx512()),
            Isa::Avx512(witness) => Some(witness),
            _ => None,
        }
    }

    /// Runs `f` compiled for this instruction set: everything that is inlined into `f` (mark it `#[inline(always)]`)
    /// may use its registers. The operations and their order stay those written, so only the speed changes.
    #[inline(always)]
    pub fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the witness proves that the features were detected.
            Isa::Amx(_) | Isa::Avx512(_) => unsafe { with_avx512(f) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the witness proves that the features were detected.
            Isa::Avx2(_) => unsafe { with_avx2(f) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Amx(_) | Isa::Avx512(_) | Isa::Avx2(_) => unreachable!("a witness is only made on x86-64"),
            Isa::Portable => f(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[cfg_attr(
    not(feature = "emulate-avx512"),
    target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
)]
#[cfg_attr(feature = "emulate-avx512", target_feature(enable = "avx2,fma"))]
fn with_avx512<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Asks for the memory some pages behind `block`, which a walk through memory will come to: at the speed of memory the
/// hardware's own prefetching stops too often, at page boundaries and between rows.
#[inline(always)]
pub(crate) fn ahead<T>(block: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(block)).step_by(64) {
        const AHEAD: usize = 4096;
        let at = block.as_ptr().cast::<i8>().wrapping_add(AHEAD + line);
        // SAFETY: every x86-64 has SSE; a prefetch reads nothing and may point anywhere.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = block;
}
