//! `copy`: gradients by finite differences, every fast path against the reference, equal bits for any threads.

use crate::testing::{Numbers, buffer, check, filled, ids, read};
use crate::{Backend, CpuBackend, Dtype};

#[test]
fn conversions_are_those_of_the_reference() {
    let types = [Dtype::F32, Dtype::Bf16];
    for n in [0, 1, 17, 64, 33_000] {
        for [from, to] in types.into_iter().flat_map(|from| types.map(|to| [from, to])) {
            // One rounding each, to the same neighbour: equal.
            check(&format!("{n} {from:?} {to:?}"), 0.0, |backend| {
                let mut numbers = Numbers::new(23);
                let x = numbers.vec(n + 2, 1.0);
                let mut y = buffer(to, &numbers.vec(n + 7, 1.0));
                backend.copy(n, &buffer(from, &x), 2, &mut y, 3);
                let mut uploaded = filled(to, n + 4, 0.5);
                backend.upload(&x[2..], &mut uploaded, 3);
                let mut downloaded = vec![0.0; n];
                backend.download(&uploaded, 3, &mut downloaded);
                let mut constant = filled(to, n + 3, 0.5);
                backend.fill(n, 0.1, &mut constant);
                vec![read(&y), read(&uploaded), downloaded, read(&constant)]
            });
        }
    }
}

#[test]
fn integers_are_copied() {
    let backend = CpuBackend::detect();
    let mut y = ids(&[9, 9, 9, 9]);
    backend.copy(2, &ids(&[1, 2, 3]), 1, &mut y, 2);
    assert_eq!(y.u32(), [9, 9, 2, 3]);
    backend.upload_u32(&[7], &mut y);
    assert_eq!(y.u32(), [7, 9, 2, 3]);
}

#[test]
#[should_panic(expected = "only measured for a plan")]
fn a_measured_buffer_holds_nothing() {
    use crate::{Allocator, MemoryClass, Meter};
    let x = Meter::default().alloc(MemoryClass::Workspace, Dtype::F32, 4);
    CpuBackend::detect().download(&x, 0, &mut [0.0]);
}
