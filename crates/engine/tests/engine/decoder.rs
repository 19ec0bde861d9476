//! What must hold of training, on the real decoder with small random weights.

use foundry_comm::{Communicator, Solo, Threads};
use foundry_data::{Loader, PackedRow};
use foundry_engine::callbacks::{Callback, Checkpoint as CheckpointCallback};
use foundry_engine::checkpoint::{Checkpoint, Facts, open};
use foundry_engine::optim;
use foundry_engine::schedule::SchedulerType;
use foundry_engine::{DecoderModel, EngineError, LogRecord, Run, StepCount, Summary, TrainingArgs, fit};
use foundry_formats::{HfConfig, ModelFiles, safetensors};
use foundry_kernels::{Backend, CpuBackend, Dtype, Isa};
use foundry_models::{Decoder, LoraSpec, TargetModules, Tuning, decoder_config};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

pub(crate) fn config() -> HfConfig {
    HfConfig::from_json(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false, "initializer_range": 0.05
    }))
}

/// Rows of counting sequences, with uneven numbers of labels.
pub(crate) fn rows(count: usize) -> Arc<Vec<PackedRow>> {
    let row = |i: usize| {
        let mut row = PackedRow::default();
        for s in 0..2 {
            let len = 4 + (i * 3 + s * 5) % 6;
            for t in 0..len {
                let token = (i * 7 + s * 11 + t) % 40;
                row.tokens.push(token as u32);
                row.labels.push(if t > i % 3 { token as i32 } else { -100 });
            }
            row.seq_lens.push(len as u32);
        }
        row
    };
    Arc::new((0..count).map(row).collect())
}

fn lora(dropout: f64) -> Tuning {
    let target_modules = Some(TargetModules::AllLinear);
    Tuning::Lora(LoraSpec {
        r: 4,
        lora_alpha: 8.0,
        lora_dropout: dropout,
        target_modules,
        ..LoraSpec::default()
    })
}

/// Keeps the lines of the log.
struct Log(Rc<RefCell<Vec<LogRecord>>>);

impl Callback for Log {
    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        self.0.borrow_mut().push(record.clone());
        Ok(())
    }
}

pub(crate) struct Trained {
    pub(crate) summary: Summary,
    pub(crate) values: Vec<f32>,
    pub(crate) log: Vec<LogRecord>,
}

impl Trained {
    pub(crate) fn bits(&self) -> Vec<u32> {
        self.values.iter().map(|x| x.to_bits()).collect()
    }
    fn distance(&self, other: &Trained) -> f32 {
        self.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }
    pub(crate) fn losses(&self) -> Vec<f64> {
        self.log.iter().map(|record| record.loss).collect()
    }
}

/// Where a run writes and what it goes on from.
#[derive(Default, Clone, Copy)]
pub(crate) struct Disk<'a> {
    pub(crate) output_dir: Option<&'a Path>,
    pub(crate) resume: Option<&'a Checkpoint>,
}

fn train(
    args: &TrainingArgs,
    tuning: &Tuning,
    compute: Dtype,
    comm: &dyn Communicator,
    disk: Disk<'_>,
) -> Trained {
    let backend = CpuBackend::new(1, Isa::detect());
    let (_, config) = decoder_config(&config()).unwrap();
    let mut decoder = Decoder::allocate(&backend, &config, tuning, compute, 128, false).unwrap();
    decoder.init_random(&backend, 11, 0.05);
    decoder.init_lora(&backend, 12);
    train_decoder(args, &backend, &mut decoder, rows(12), comm, disk)
}

pub(crate) fn train_decoder(
    args: &TrainingArgs,
    backend: &dyn Backend,
    decoder: &mut Decoder,
    rows: Arc<Vec<PackedRow>>,
    comm: &dyn Communicator,
    disk: Disk<'_>,
) -> Trained {
    let mut optimizer = optim::make(backend, decoder.parameters(), args);
    let batch = args.per_device_train_batch_size;
    let mut loader = Loader::new(rows, batch, args.data_seed(), true, comm.rank(), comm.world_size());
    let log = Rc::new(RefCell::new(Vec::new()));
    let mut callbacks: Vec<Box<dyn Callback + '_>> = vec![Box::new(Log(Rc::clone(&log)))];
    if let Some(dir) = disk.output_dir {
        callbacks.push(Box::new(CheckpointCallback::new(dir, None)));
    }
    let is_adapter = matches!(decoder.tuning(), Tuning::Lora(_));
    let mut model = DecoderModel {
        decoder,
        gather: Box::new(move |decoder, backend| {
            let write = match is_adapter {
                true => decoder.gather_adapter(backend, "tiny")?,
                false => decoder.gather_model(backend, &config(), None, &Default::default())?,
            };
            Ok(Box::new(|dir| Ok(write(dir)?)))
        }),
    };
    let summary = fit(&mut Run {
        args,
        backend,
        comm,
        model: &mut model,
        optimizer: optimizer.as_mut(),
        loader: &mut loader,
        evaluation: None,
        callbacks,
        resume: disk.resume,
        facts: Facts::new(),
    })
    .unwrap();
    let mut values = Vec::new();
    for parameter in model.decoder.parameters() {
        let start = values.len();
        values.resize(start + parameter.elements(), 0.0);
        backend.download(&parameter.value, 0, &mut values[start..]);
    }
    let log = log.borrow().clone();
    Trained { summary, values, log }
}

pub(crate) fn args(steps: i64, batch: usize, accumulation: usize) -> TrainingArgs {
    TrainingArgs {
        max_steps: steps,
        per_device_train_batch_size: batch,
        gradient_accumulation_steps: accumulation,
        learning_rate: 5e-3,
        lr_scheduler_type: SchedulerType::Cosine,
        warmup_steps: StepCount::steps(2),
        weight_decay: 0.01,
        logging_steps: StepCount::steps(1),
        save_steps: StepCount::steps(10),
        ..TrainingArgs::default()
    }
}

#[test]
fn ten_steps_of_each_tuning_and_precision() {
    for (tuning, name) in [(Tuning::Full, "full"), (lora(0.0), "lora")] {
        let [single, half] = [Dtype::F32, Dtype::Bf16]
            .map(|compute| train(&args(10, 2, 2), &tuning, compute, &Solo, Disk::default()));
        assert_eq!(single.summary.step, 10);
        assert!(single.values.iter().chain(&half.values).all(|x| x.is_finite()), "{name}");
        for (a, b) in single.losses().iter().zip(half.losses()) {
            // bf16 has 8 bits: a relative error of 0.4 % in each operand of the logits.
            assert!((a - b).abs() < 0.05, "{name}: {a} in f32, {b} in bf16");
        }
    }
}

#[test]
fn loss_decreases() {
    for (tuning, name, share) in [(Tuning::Full, "full", 0.5), (lora(0.0), "lora", 0.9)] {
        let losses = train(&args(40, 4, 1), &tuning, Dtype::F32, &Solo, Disk::default()).losses();
        let (first, last) = (losses[0], losses[37..].iter().sum::<f64>() / 3.0);
        assert!(
            (first - 40f64.ln()).abs() < 0.3,
            "{name}: 40 words, nothing learnt: about 3.69, got {first}"
        );
        assert!(last < share * first, "{name}: {first} to {last}");
    }
}

#[test]
fn the_split_into_micro_batches_does_not_change_the_update() {
    for (tuning, name) in [(Tuning::Full, "full"), (lora(0.0), "lora")] {
        let run = |batch, accumulation| {
            train(&args(5, batch, accumulation), &tuning, Dtype::F32, &Solo, Disk::default())
        };
        let whole = run(6, 1);
        for (batch, accumulation) in [(1, 6), (2, 3)] {
            let split = run(batch, accumulation);
            // Adam divides by the gradient's own size, so where a gradient nearly cancels its rounding error decides
            // about a whole step of the learning rate (5e-3); elsewhere the difference is of the order 1e-6.
            let close =
                whole.values.iter().zip(&split.values).filter(|(a, b)| (*a - *b).abs() < 2e-5).count();
            assert!(close * 1000 >= whole.values.len() * 995, "{name} {batch}·{accumulation}: {close}");
            for (a, b) in whole.log.iter().zip(&split.log) {
                assert!((a.loss - b.loss).abs() < 1e-5, "{name} step {}: {} {}", a.step, a.loss, b.loss);
                assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-4, "{name} step {}", a.step);
            }
        }
    }
}

#[test]
fn two_ranks_are_one_rank() {
    let run = |world: usize, accumulation| {
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Threads::group(world)
                .into_iter()
                .map(|comm| {
                    scope.spawn(move || {
                        let args = args(6, 1, accumulation);
                        train(&args, &lora(0.0), Dtype::F32, &comm, Disk::default())
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let (alone, both) = (run(1, 4).remove(0), run(2, 2));
    assert_eq!(both[0].bits(), both[1].bits(), "both ranks hold the same bits");
    assert!(alone.distance(&both[0]) < 1e-4, "{}", alone.distance(&both[0]));
    for (a, b) in alone.losses().iter().zip(both[0].losses()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn ten_and_ten_resumed_are_twenty_bit_for_bit() {
    let args = args(20, 2, 2);
    for (tuning, compute) in
        [(lora(0.1), Dtype::Bf16), (Tuning::Full, Dtype::F32), (Tuning::Full, Dtype::Bf16)]
    {
        let (straight, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let disk = Disk { output_dir: Some(straight.path()), resume: None };
        let whole = train(&args, &tuning, compute, &Solo, disk);
        let checkpoint = open(&straight.path().join("checkpoint-10")).unwrap();
        let disk = Disk { output_dir: Some(again.path()), resume: Some(&checkpoint) };
        let resumed = train(&args, &tuning, compute, &Solo, disk);
        assert_eq!(resumed.bits(), whole.bits(), "{tuning:?} {compute:?}");
        assert_eq!(resumed.losses(), whole.losses()[10..], "{tuning:?} {compute:?}");
        let optimizer = |dir: &Path| std::fs::read(dir.join("checkpoint-20/optimizer.safetensors")).unwrap();
        assert!(optimizer(straight.path()) == optimizer(again.path()), "{tuning:?} {compute:?}");
        let model = if compute == Dtype::Bf16 && tuning != Tuning::Full { "adapter_model" } else { "model" };
        assert!(again.path().join(format!("checkpoint-20/{model}.safetensors")).exists());
    }
}

/// transformers' own ten steps on the tiny checkpoint that the models crate keeps, through `fit`.
#[test]
fn the_loop_follows_torchs_trajectory() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens/llama");
    let expected: Value = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let case = safetensors::open(&dir.join("case.safetensors")).unwrap();
    let integers = |name: &str| {
        let mut values = vec![0; case.find(name).unwrap().elements()];
        case.read_i64(name, 0, &mut values).unwrap();
        values
    };
    let row = PackedRow {
        tokens: integers("tokens").into_iter().map(|x| x as u32).collect(),
        seq_lens: integers("seq_lens").into_iter().map(|x| x as u32).collect(),
        labels: integers("labels").into_iter().map(|x| x as i32).collect(),
    };
    let args = TrainingArgs {
        learning_rate: 1e-3,
        lr_scheduler_type: SchedulerType::Constant,
        warmup_steps: StepCount::steps(0),
        weight_decay: 0.0,
        max_grad_norm: 0.0,
        ..args(10, 1, 1)
    };
    let files = ModelFiles::open(&dir).unwrap();
    let (_, config) = decoder_config(&files.config).unwrap();
    let spec = LoraSpec::from_adapter(&dir.join("adapter")).unwrap();
    for (tuning, key) in
        [(Tuning::Full, "full_trajectory_lr1e-3"), (Tuning::Lora(spec), "lora_trajectory_lr1e-3")]
    {
        let backend = CpuBackend::new(1, Isa::detect());
        let tokens = row.tokens.len();
        let mut decoder = Decoder::allocate(&backend, &config, &tuning, Dtype::F32, tokens, false).unwrap();
        decoder.load(&backend, files.weights().unwrap().as_ref()).unwrap();
        if tuning != Tuning::Full {
            decoder.load_adapter(&backend, &dir.join("adapter")).unwrap();
        }
        let rows = Arc::new(vec![row.clone()]);
        let trained = train_decoder(&args, &backend, &mut decoder, rows, &Solo, Disk::default());
        let torch: Vec<f64> = expected[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        for (step, (got, expected)) in trained.losses().iter().zip(&torch).enumerate() {
            // f32 against f32 in other orders of summation; the parity set asks for 1e-3.
            assert!((got - expected).abs() < 1e-3, "{key} step {}: {got}, torch {expected}", step + 1);
        }
        assert_eq!(trained.losses().len(), torch.len());
    }
}
