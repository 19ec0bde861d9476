//! Memory that kernels work on, opaque to everything above this crate.

use crate::{Dtype, operand::Operand};
use bytemuck::{Pod, Zeroable};
use half::bf16;
use std::sync::{Arc, Mutex};

/// Gives memory that the C library holds for later allocations back to the system, so that the process is as large as
/// what it uses. Does nothing where there is no such call.
pub fn give_back_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the signature is that of malloc.h.
        #[expect(unsafe_code, reason = "a call of the C library that the standard library does not offer")]
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim (glibc, malloc.h) takes no pointer and may be called at any time from any thread; it
        // touches free memory only.
        #[expect(unsafe_code, reason = "as above")]
        unsafe {
            malloc_trim(0)
        };
    }
}

/// What a piece of memory is for; `llm-foundry plan` prints one line for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryClass {
    /// Frozen weights, or the compute copy of trained ones.
    Weights,
    /// Trained values (f32).
    Trainable,
    /// Gradients of trained values.
    Gradients,
    /// State of the optimiser.
    Optimizer,
    /// What the forward keeps for the backward.
    Activations,
    /// Scratch that a step needs and forgets.
    Workspace,
    /// Keys and values of earlier tokens while generating.
    KvCache,
}

impl MemoryClass {
    /// Every class, in the order in which people read them.
    pub const ALL: [MemoryClass; 7] = [
        MemoryClass::Weights,
        MemoryClass::Trainable,
        MemoryClass::Gradients,
        MemoryClass::Optimizer,
        MemoryClass::Activations,
        MemoryClass::Workspace,
        MemoryClass::KvCache,
    ];
}

/// A cache line: the unit of allocation, so that every buffer starts on a 64-byte boundary.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// `len` numbers of one dtype. Only a [`Backend`](crate::Backend) looks inside.
pub struct Buffer {
    dtype: Dtype,
    len: usize,
    /// Another thread may read them for a while ([`Backend::share`](crate::Backend::share)).
    lines: Arc<Vec<Line>>,
    phantom: bool,
}

impl Buffer {
    /// A zeroed buffer in host memory.
    pub(crate) fn host(dtype: Dtype, len: usize) -> Self {
        let lines = bytemuck::allocation::zeroed_vec(
            len.checked_mul(dtype.bytes()).expect("a buffer that memory can hold").div_ceil(64),
        );
        Self { dtype, len, lines: Arc::new(lines), phantom: false }
    }

    /// A buffer that only has a size.
    fn phantom(dtype: Dtype, len: usize) -> Self {
        Self { dtype, len, lines: Arc::default(), phantom: true }
    }

    /// Number format of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Size as allocated: whole cache lines.
    pub fn bytes(&self) -> u64 {
        allocated_bytes(self.dtype, self.len)
    }

    fn expect(&self, dtype: Dtype) {
        assert!(!self.phantom, "this buffer was only measured for a plan, it holds no numbers");
        assert!(
            self.dtype == dtype,
            "expected a {dtype:?} buffer, got {:?} of {} elements",
            self.dtype,
            self.len
        );
    }

    /// The same memory once more. While both exist, neither can be written to.
    pub(crate) fn alias(&self) -> Self {
        Self { dtype: self.dtype, len: self.len, lines: Arc::clone(&self.lines), phantom: self.phantom }
    }

    fn writable<T: Pod>(&mut self, dtype: Dtype) -> &mut [T] {
        self.expect(dtype);
        let lines = Arc::get_mut(&mut self.lines);
        let lines =
            lines.expect("a buffer that is shared: whoever shares numbers waits before they are changed");
        &mut bytemuck::cast_slice_mut(lines)[..self.len]
    }

    /// The elements of a buffer of operands.
    pub(crate) fn typed<T: Operand>(&self) -> &[T] {
        self.expect(T::DTYPE);
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }

    /// The elements of a buffer of operands, to be written.
    pub(crate) fn typed_mut<T: Operand>(&mut self) -> &mut [T] {
        self.writable(T::DTYPE)
    }

    /// The elements of an f32 buffer.
    pub(crate) fn f32(&self) -> &[f32] {
        self.expect(Dtype::F32);
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }

    /// The elements of an f32 buffer, to be written.
    pub(crate) fn f32_mut(&mut self) -> &mut [f32] {
        self.writable(Dtype::F32)
    }

    /// The elements of a bf16 buffer, to be written.
    pub(crate) fn bf16_mut(&mut self) -> &mut [bf16] {
        self.writable(Dtype::Bf16)
    }

    /// The elements of a U8 buffer.
    pub(crate) fn u8(&self) -> &[u8] {
        self.expect(Dtype::U8);
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }

    /// The elements of a U8 buffer, to be written.
    pub(crate) fn u8_mut(&mut self) -> &mut [u8] {
        self.writable(Dtype::U8)
    }

    /// The elements of a U32 buffer.
    pub(crate) fn u32(&self) -> &[u32] {
        self.expect(Dtype::U32);
        &bytemuck::cast_slice(self.lines.as_slice())[..self.len]
    }

    /// The elements of a U32 buffer, to be written.
    pub(crate) fn u32_mut(&mut self) -> &mut [u32] {
        self.writable(Dtype::U32)
    }
}

fn allocated_bytes(dtype: Dtype, len: usize) -> u64 {
    // A plan of something absurd must come out as far too much, not wrap around to something that fits.
    (len as u64).saturating_mul(dtype.bytes() as u64).div_ceil(64).saturating_mul(64)
}

/// Something that hands out zeroed buffers. A backend does; a [`Meter`] only counts what would be handed out, so that
/// a plan and a run compute their sizes with the same code.
pub trait Allocator {
    /// A zeroed buffer of `len` elements.
    fn alloc(&self, class: MemoryClass, dtype: Dtype, len: usize) -> Buffer;
    /// Bytes handed out so far, one entry per class of [`MemoryClass::ALL`].
    fn allocated(&self) -> Vec<(MemoryClass, u64)>;
}

/// Running totals by class.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<[u64; MemoryClass::ALL.len()]>);

impl Ledger {
    pub(crate) fn add(&self, class: MemoryClass, bytes: u64) {
        let mut totals = self.0.lock().expect("no thread panics while it holds the ledger");
        totals[class as usize] = totals[class as usize].saturating_add(bytes);
    }

    pub(crate) fn read(&self) -> Vec<(MemoryClass, u64)> {
        let bytes = self.0.lock().expect("no thread panics while it holds the ledger");
        MemoryClass::ALL.iter().map(|&class| (class, bytes[class as usize])).collect()
    }
}

/// Counts allocations without making them.
#[derive(Default)]
pub struct Meter(Ledger);

impl Allocator for Meter {
    fn alloc(&self, class: MemoryClass, dtype: Dtype, len: usize) -> Buffer {
        self.0.add(class, allocated_bytes(dtype, len));
        Buffer::phantom(dtype, len)
    }

    fn allocated(&self) -> Vec<(MemoryClass, u64)> {
        self.0.read()
    }
}
