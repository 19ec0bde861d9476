//! torch's second algorithm for permutations, which starts at 214,748,364 elements; takes 1.7 GB and half a minute.
//! `cargo nextest run --profile parity --run-ignored all`

use foundry_formats::torch_rng::Mt19937;

#[test]
#[ignore = "takes 1.7 GB and half a minute"]
fn a_very_long_randperm_equals_torch() {
    let narrow = Mt19937::seeded(5).randperm(214_748_363);
    assert_eq!(
        (&narrow[..2], &narrow[214_748_361..]),
        (&[94459959, 22248453][..], &[150459666, 186880338][..])
    );
    drop(narrow);
    let wide = Mt19937::seeded(5).randperm(214_748_364);
    assert_eq!((&wide[..2], &wide[214_748_362..]), (&[91252029, 200188117][..], &[91157322, 61735368][..]));
}
