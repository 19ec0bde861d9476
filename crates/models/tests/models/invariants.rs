//! What must hold whatever the numbers are.

use crate::fixture::{FAMILIES, Golden, backend, gradients, relative_error};
use foundry_kernels::{Allocator, Dtype, MemoryClass, Meter, TokenLoss};
use foundry_models::{
    Batch, Checkpointing, Decoder, LoraSpec, Objective, Storage, TargetModules, Tuning, decoder_config,
};

fn tunings(golden: &Golden) -> [Tuning; 2] {
    [Tuning::Full, Tuning::Lora(golden.adapter())]
}

/// The sequences of the packed row, one by one.
fn sequences(golden: &Golden) -> Vec<(Vec<u32>, Vec<i32>)> {
    let mut start = 0;
    golden
        .seq_lens
        .iter()
        .map(|&len| {
            let part = start..start + len as usize;
            start = part.end;
            (golden.tokens[part.clone()].to_vec(), golden.labels[part].to_vec())
        })
        .collect()
}

#[test]
fn packed_rows_equal_single_sequences_and_any_split_into_micro_batches() {
    let backend = backend();
    let objective = Objective::default();
    for family in FAMILIES {
        let golden = Golden::open(family);
        let scale = 1.0 / golden.labelled() as f32;
        for tuning in tunings(&golden) {
            let mut decoder = golden.decoder(&backend, &tuning, Dtype::F32);
            let packed_loss = golden.step(&backend, &mut decoder) * golden.labelled() as f64;
            let packed = gradients(&backend, &decoder);
            let all = sequences(&golden);
            for rows in [vec![0..1, 1..2, 2..3, 3..4], vec![0..2, 2..4], vec![0..3, 3..4]] {
                decoder.zero_grad(&backend);
                let mut loss = 0.0;
                for row in rows {
                    let tokens: Vec<u32> = all[row.clone()].iter().flat_map(|(t, _)| t.clone()).collect();
                    let labels: Vec<i32> = all[row.clone()].iter().flat_map(|(_, l)| l.clone()).collect();
                    let batch = Batch { tokens: &tokens, seq_lens: &golden.seq_lens[row], labels: &labels };
                    loss += decoder.forward_backward(&backend, &batch, &objective, scale, 0).unwrap().loss;
                }
                assert!(
                    (loss - packed_loss).abs() < 1e-5 * packed_loss,
                    "{family}: {loss}, packed {packed_loss}"
                );
                for ((name, split), (_, packed)) in gradients(&backend, &decoder).iter().zip(&packed) {
                    // Sums in another order: the design's tolerance.
                    let error = relative_error(split, packed);
                    assert!(error < 1e-5, "{family}: {name}: {error}");
                }
            }
        }
    }
}

/// Every way to keep less than everything; the families here have three blocks.
const EVERY_CHECKPOINTING: [Checkpointing; 4] = [
    Checkpointing::Selective,
    Checkpointing::Mixed { full: 1 },
    Checkpointing::Mixed { full: 2 },
    Checkpointing::Full,
];

#[test]
fn each_checkpointing_keeps_less_than_the_one_before() {
    let golden = Golden::open("llama");
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let activations = |checkpointing: Checkpointing| {
        let meter = Meter::default();
        let tuning = Tuning::Lora(golden.adapter());
        Decoder::allocate(&meter, &config, &tuning, Dtype::Bf16, 128, checkpointing).unwrap();
        let classes = [MemoryClass::Activations, MemoryClass::Workspace];
        meter.allocated().iter().filter(|(class, _)| classes.contains(class)).map(|(_, b)| b).sum::<u64>()
    };
    let bytes: Vec<u64> =
        [Checkpointing::None].into_iter().chain(EVERY_CHECKPOINTING).map(activations).collect();
    // One block alone that keeps its input only saves nothing: it needs a set of activations like the others.
    assert!(
        bytes[1] < bytes[0] && bytes[2] == bytes[1] && bytes[3] < bytes[2] && bytes[4] < bytes[3],
        "{bytes:?}"
    );
}

#[test]
fn parameters_without_a_master_need_half_the_bytes() {
    let (backend, golden) = (backend(), Golden::open("llama"));
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let bytes = |bf16_parameters: bool| {
        let (meter, storage) = (Meter::default(), Storage { bf16_parameters, ..Storage::default() });
        Decoder::allocate(&meter, &config, &Tuning::Full, Dtype::Bf16, 8, storage).unwrap();
        let classes = [MemoryClass::Weights, MemoryClass::Trainable];
        meter.allocated().iter().filter(|(class, _)| classes.contains(class)).map(|(_, b)| b).sum::<u64>()
    };
    // Six bytes a number become two, but for the norms, which are float32 in any case.
    let (with, without) = (bytes(false), bytes(true));
    assert!(without * 100 < with * 35, "{without} of {with}");
    // The same operands: the same loss and gradients.
    let run = |bf16_parameters: bool| {
        let storage = Storage { bf16_parameters, ..Storage::default() };
        let mut decoder = golden.decoder_with(&backend, &Tuning::Full, Dtype::Bf16, storage);
        (golden.step(&backend, &mut decoder), gradients(&backend, &decoder))
    };
    assert!(run(false) == run(true));
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    let backend = backend();
    for (family, compute) in [("llama", Dtype::F32), ("llama_tied", Dtype::Bf16), ("mistral", Dtype::Bf16)] {
        let golden = Golden::open(family);
        let [full, _] = tunings(&golden);
        let lora = Tuning::Lora(LoraSpec { lora_dropout: 0.2, ..golden.adapter() });
        for tuning in [full, lora] {
            let run = |checkpointing: Checkpointing| {
                let mut decoder = golden.decoder_with(&backend, &tuning, compute, checkpointing);
                let loss = golden.step(&backend, &mut decoder);
                (loss, gradients(&backend, &decoder))
            };
            let everything_kept = run(Checkpointing::None);
            for checkpointing in EVERY_CHECKPOINTING {
                assert!(run(checkpointing) == everything_kept, "{family} {compute:?} {checkpointing:?}");
            }
        }
    }
}

#[test]
fn two_runs_have_the_same_bits() {
    let backend = backend();
    let golden = Golden::open("llama");
    let run = || {
        let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::Bf16);
        (golden.step(&backend, &mut decoder), gradients(&backend, &decoder))
    };
    assert!(run() == run());
}

#[test]
fn a_plan_counts_what_a_run_allocates() {
    let golden = Golden::open("llama_tied");
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let saved_head = LoraSpec { modules_to_save: Some(vec!["lm_head".into()]), ..golden.adapter() };
    let dropout = LoraSpec { lora_dropout: 0.1, ..golden.adapter() };
    let tunings = [
        Tuning::Full,
        Tuning::Frozen,
        Tuning::Lora(golden.adapter()),
        Tuning::Lora(saved_head),
        Tuning::Lora(dropout),
        Tuning::Adapted(golden.adapter()),
    ];
    for tuning in tunings {
        for compute in [Dtype::F32, Dtype::Bf16] {
            for checkpointing in [Checkpointing::None].into_iter().chain(EVERY_CHECKPOINTING) {
                let backend = backend();
                let meter = Meter::default();
                for alloc in [&meter as &dyn Allocator, &backend] {
                    Decoder::allocate(alloc, &config, &tuning, compute, 100, checkpointing).unwrap();
                }
                assert_eq!(meter.allocated(), backend.allocated(), "{tuning:?}");
                let mut decoder =
                    Decoder::allocate(&meter, &config, &tuning, compute, 100, checkpointing).unwrap();
                assert_eq!(
                    decoder.parameters_mut().is_empty(),
                    matches!(tuning, Tuning::Frozen | Tuning::Adapted(_))
                );
            }
        }
    }
}

#[test]
fn training_allocates_nothing_after_the_start() {
    let backend = backend();
    let golden = Golden::open("llama");
    for checkpointing in [Checkpointing::None].into_iter().chain(EVERY_CHECKPOINTING) {
        let tuning = Tuning::Lora(golden.adapter());
        let mut decoder = golden.decoder_with(&backend, &tuning, Dtype::F32, checkpointing);
        let before = backend.allocated();
        golden.step(&backend, &mut decoder);
        decoder.forward_loss(&backend, &golden.batch(), None).unwrap();
        decoder.after_update(&backend);
        assert_eq!(backend.allocated(), before, "{checkpointing:?}");
    }
}

#[test]
fn only_what_is_trained_costs_memory() {
    let golden = Golden::open("llama");
    let (_, config) = decoder_config(&golden.files.config).unwrap();
    let bytes = |tuning: &Tuning, gradient_checkpointing: bool| {
        let meter = Meter::default();
        Decoder::allocate(&meter, &config, tuning, Dtype::F32, 128, gradient_checkpointing).unwrap();
        let of = |class: MemoryClass| meter.allocated().iter().find(|(c, _)| *c == class).unwrap().1;
        (of(MemoryClass::Gradients), of(MemoryClass::Activations), of(MemoryClass::Workspace))
    };
    let all = Tuning::Lora(golden.adapter());
    let top = Tuning::Lora(LoraSpec {
        target_modules: Some(TargetModules::List(vec!["2.mlp.down_proj".into()])),
        ..golden.adapter()
    });
    let (frozen, low, high) = (bytes(&Tuning::Frozen, false), bytes(&all, false), bytes(&top, false));
    assert_eq!(frozen.0, 0, "no gradients without training");
    assert!(frozen.2 < low.2, "no scratch for a backward either");
    assert!(high.1 < low.1, "frozen blocks under the lowest adapter keep nothing");
    assert!(bytes(&all, true).1 < low.1, "checkpointing keeps less");
    assert_eq!(
        low.0,
        golden.adapter().r as u64
            * 3
            * 4
            * (64 * 5 + 64 * 2 + 32 * 2 + 176 + 2 * (64 + 176) + 176 + 64 - 176 - 64)
    );
}

#[test]
fn short_rows_after_long_ones_see_nothing_of_them() {
    let backend = backend();
    let golden = Golden::open("mistral");
    let (tokens, labels) = sequences(&golden).swap_remove(2);
    let seq_lens = [tokens.len() as u32];
    let batch = Batch { tokens: &tokens, seq_lens: &seq_lens, labels: &labels };
    let mut fresh = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    let mut used = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    golden.step(&backend, &mut used);
    used.zero_grad(&backend);
    let run = |decoder: &mut Decoder| {
        let sums = decoder.forward_backward(&backend, &batch, &Objective::default(), 0.1, 0).unwrap();
        (sums, gradients(&backend, decoder))
    };
    assert!(run(&mut fresh) == run(&mut used));
}

#[test]
fn objectives_reach_the_loss_and_noise_needs_training() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Lora(golden.adapter()), Dtype::F32);
    let mut loss = |objective: Objective, seed: u64| {
        decoder.forward_backward(&backend, &golden.batch(), &objective, 1.0, seed).unwrap().loss
    };
    let plain = loss(Objective::default(), 0);
    let smooth = loss(Objective { loss: TokenLoss::LabelSmoothing(0.1), neftune_alpha: None }, 0);
    let dft = loss(Objective { loss: TokenLoss::Dft, neftune_alpha: None }, 0);
    let noisy = Objective { loss: TokenLoss::CrossEntropy, neftune_alpha: Some(5.0) };
    assert!(plain != smooth && plain != dft);
    assert!(loss(noisy, 0) != plain && loss(noisy, 0) != loss(noisy, 1));
    assert_eq!(loss(noisy, 3), loss(noisy, 3));
}

#[test]
fn a_row_without_labels_leaves_no_trace() {
    let backend = backend();
    let golden = Golden::open("llama");
    let mut decoder = golden.decoder(&backend, &Tuning::Full, Dtype::F32);
    let labels = vec![-100; golden.tokens.len()];
    let batch = Batch { labels: &labels, ..golden.batch() };
    let sums = decoder.forward_backward(&backend, &batch, &Objective::default(), 1.0, 0).unwrap();
    assert_eq!((sums.count, sums.loss), (0, 0.0));
    assert!(gradients(&backend, &decoder).iter().all(|(_, g)| g.iter().all(|g| *g == 0.0)));
    assert_eq!(decoder.forward_loss(&backend, &batch, None).unwrap().count, 0);
}

#[test]
fn flops_grow_with_what_is_trained() {
    let backend = backend();
    let golden = Golden::open("llama");
    let flops = |tuning: &Tuning, checkpointing: bool| {
        golden.base(&backend, tuning, Dtype::F32, checkpointing).flops(64)
    };
    let (frozen, full) = (flops(&Tuning::Frozen, false), flops(&Tuning::Full, false));
    let lora = flops(&Tuning::Lora(golden.adapter()), false);
    // Weights of the linear layers and the head: 2 operations each; attention: 4 per head dimension and key.
    let weights = 3.0 * (64.0 * 64.0 * 2.0 + 2.0 * 64.0 * 32.0 + 3.0 * 64.0 * 176.0) + 64.0 * 512.0;
    assert_eq!(frozen.forward, 2.0 * weights + 3.0 * 4.0 * 64.0 * 32.5);
    assert_eq!(frozen.backward, 0.0);
    assert_eq!(full.backward, 4.0 * weights + 3.0 * 10.0 * 64.0 * 32.5);
    assert!(frozen.forward < lora.forward && lora.backward < full.backward);
    assert!(flops(&Tuning::Full, true).backward > full.backward);
}
