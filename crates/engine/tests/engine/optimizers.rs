//! Every optimiser in the loop: it learns, its state survives a checkpoint bit for bit, a plan knows its size.

use crate::decoder::{Disk, Trained, args, config, rows, train_decoder};
use foundry_comm::Solo;
use foundry_engine::checkpoint::open;
use foundry_engine::{Optim, SgdArgs, TrainingArgs, optim};
use foundry_formats::HfConfig;
use foundry_kernels::{Allocator, CpuBackend, Dtype, Isa, MemoryClass, Meter};
use foundry_models::{Decoder, DecoderConfig, Storage, Tuning, decoder_config};
use serde_json::json;

/// The tiny decoder of the other tests with a feed-forward layer large enough for moments of eight bits.
fn wide_config() -> DecoderConfig {
    let mut hf: HfConfig = config();
    hf.0.insert("intermediate_size".into(), json!(160));
    decoder_config(&hf).unwrap().1
}

/// Each optimiser with a learning rate that suits it.
fn every_optimiser() -> Vec<TrainingArgs> {
    let with = |optim: Optim, learning_rate: f64, sgd: SgdArgs| TrainingArgs {
        optim,
        learning_rate,
        sgd,
        adam_beta2: if optim == Optim::Lion { 0.99 } else { 0.999 },
        ..args(20, 2, 1)
    };
    let nesterov = SgdArgs { momentum: 0.9, dampening: 0.0, nesterov: true };
    vec![
        with(Optim::AdamW, 5e-3, SgdArgs::default()),
        with(Optim::AdamW8Bit, 5e-3, SgdArgs::default()),
        with(Optim::Lion, 2e-3, SgdArgs::default()),
        with(Optim::Sgd, 0.5, SgdArgs::default()),
        with(Optim::Sgd, 0.1, nesterov),
        with(Optim::Adafactor, 1e-2, SgdArgs::default()),
    ]
}

fn train(args: &TrainingArgs, storage: Storage, disk: Disk<'_>) -> Trained {
    let backend = CpuBackend::new(1, Isa::detect());
    let compute = if storage.bf16_parameters { Dtype::Bf16 } else { Dtype::F32 };
    let mut decoder =
        Decoder::allocate(&backend, &wide_config(), &Tuning::Full, compute, 128, storage).unwrap();
    decoder.init_random(&backend, 11, 0.05);
    train_decoder(args, &backend, &mut decoder, rows(12), &Solo, disk)
}

#[test]
fn every_optimiser_learns_and_resumes_bit_for_bit() {
    for bf16_parameters in [false, true] {
        let storage = Storage { bf16_parameters, ..Storage::default() };
        for args in every_optimiser() {
            let name = format!("{:?} {:?} {bf16_parameters}", args.optim, args.sgd);
            let (straight, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let disk = Disk { output_dir: Some(straight.path()), resume: None };
            let whole = train(&args, storage.clone(), disk);
            let losses = whole.losses();
            // From 3.69, where nothing is learnt, in twenty steps.
            assert!(losses[19] < 0.95 * losses[0], "{name}: {losses:?}");
            let checkpoint = open(&straight.path().join("checkpoint-10")).unwrap();
            let disk = Disk { output_dir: Some(again.path()), resume: Some(&checkpoint) };
            let resumed = train(&args, storage.clone(), disk);
            assert_eq!(resumed.bits(), whole.bits(), "{name}");
            assert_eq!(resumed.losses(), losses[10..], "{name}");
        }
    }
}

#[test]
fn a_plan_counts_the_state_that_a_run_allocates() {
    for args in every_optimiser() {
        let (backend, meter) = (CpuBackend::new(1, Isa::detect()), Meter::default());
        let mut bytes = Vec::new();
        for alloc in [&meter as &dyn Allocator, &backend] {
            let decoder =
                Decoder::allocate(alloc, &wide_config(), &Tuning::Full, Dtype::F32, 8, false).unwrap();
            optim::make(alloc, decoder.parameters(), &args);
            let (_, state) = alloc.allocated()[MemoryClass::Optimizer as usize];
            let numbers: usize = decoder.parameters().iter().map(|p| p.elements()).sum();
            bytes.push((state, numbers as u64));
        }
        assert_eq!(bytes[0], bytes[1]);
        let (state, numbers) = bytes[0];
        let per_number = state as f64 / numbers as f64;
        // Small parameters round up to cache lines, and keep 32 bits where others have eight.
        let (least, most) = match (args.optim, args.sgd.momentum > 0.0) {
            (Optim::AdamW, _) => (8.0, 8.1),
            (Optim::AdamW8Bit, _) => (2.0, 5.0),
            (Optim::Lion, _) | (Optim::Sgd, true) => (4.0, 4.1),
            (Optim::Sgd, false) => (0.0, 0.0),
            (Optim::Adafactor, _) => (0.01, 0.3),
        };
        assert!((least..=most).contains(&per_number), "{:?}: {per_number}", args.optim);
    }
}
