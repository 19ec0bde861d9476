//! Tiny checkpoints with numbers from transformers and PEFT (goldens/make_goldens.py), and how to run them.

use foundry_formats::{ModelFiles, TensorSource, safetensors};
use foundry_kernels::{AdamW, Backend, Buffer, CpuBackend, Dtype, Isa, LossSums, MemoryClass, Rounding};
use foundry_models::{Batch, Decoder, LoraSpec, Objective, Storage, Tuning, decoder_config};
use serde_json::Value;
use std::path::PathBuf;

/// Families with goldens.
pub(crate) const FAMILIES: [&str; 5] = ["llama", "llama_tied", "llama3_rope", "mistral", "llama_bias"];

/// One golden folder.
pub(crate) struct Golden {
    pub(crate) dir: PathBuf,
    pub(crate) files: ModelFiles,
    pub(crate) tokens: Vec<u32>,
    pub(crate) labels: Vec<i32>,
    pub(crate) seq_lens: Vec<u32>,
    pub(crate) expected: Value,
    case: Box<dyn TensorSource>,
}

/// The folder of all goldens.
pub(crate) fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// A JSON file among the goldens.
pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join(name)).unwrap()).unwrap()
}

impl Golden {
    pub(crate) fn open(family: &str) -> Self {
        let dir = goldens().join(family);
        let case = safetensors::open(&dir.join("case.safetensors")).unwrap();
        let integers = |name: &str| {
            let mut values = vec![0; case.find(name).unwrap().elements()];
            case.read_i64(name, 0, &mut values).unwrap();
            values
        };
        Self {
            files: ModelFiles::open(&dir).unwrap(),
            tokens: integers("tokens").into_iter().map(|t| t as u32).collect(),
            labels: integers("labels").into_iter().map(|t| t as i32).collect(),
            seq_lens: integers("seq_lens").into_iter().map(|t| t as u32).collect(),
            expected: json(&format!("{family}/expected.json")),
            case,
            dir,
        }
    }

    /// A float tensor of the case.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let mut values = vec![0.0; self.case.find(name).unwrap().elements()];
        self.case.read_f32(name, 0, &mut values).unwrap();
        values
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { tokens: &self.tokens, seq_lens: &self.seq_lens, labels: &self.labels }
    }

    /// Settings of the golden's adapter.
    pub(crate) fn adapter(&self) -> LoraSpec {
        LoraSpec::from_adapter(&self.dir.join("adapter")).unwrap()
    }

    /// A loaded decoder, with the golden's adapter where the tuning has one.
    pub(crate) fn decoder(&self, backend: &dyn Backend, tuning: &Tuning, compute: Dtype) -> Decoder {
        self.decoder_with(backend, tuning, compute, false)
    }

    pub(crate) fn decoder_with(
        &self,
        backend: &dyn Backend,
        tuning: &Tuning,
        compute: Dtype,
        storage: impl Into<Storage>,
    ) -> Decoder {
        let mut decoder = self.base(backend, tuning, compute, storage);
        if matches!(tuning, Tuning::Lora(_) | Tuning::Adapted(_)) {
            decoder.load_adapter(backend, &self.dir.join("adapter")).unwrap();
        }
        decoder
    }

    /// A decoder with the base weights loaded.
    pub(crate) fn base(
        &self,
        backend: &dyn Backend,
        tuning: &Tuning,
        compute: Dtype,
        storage: impl Into<Storage>,
    ) -> Decoder {
        let (_, config) = decoder_config(&self.files.config).unwrap();
        let max_tokens = self.tokens.len();
        let mut decoder = Decoder::allocate(backend, &config, tuning, compute, max_tokens, storage).unwrap();
        decoder.load(backend, self.files.weights().unwrap().as_ref()).unwrap();
        decoder
    }

    /// Labelled tokens, which is what the loss is averaged over.
    pub(crate) fn labelled(&self) -> usize {
        let mut start = 0;
        self.seq_lens
            .iter()
            .map(|&len| {
                let part = &self.labels[start + 1..start + len as usize];
                start += len as usize;
                part.iter().filter(|label| **label != -100).count()
            })
            .sum()
    }

    /// Forward and backward over the whole case with cleared gradients; the mean loss.
    pub(crate) fn step(&self, backend: &dyn Backend, decoder: &mut Decoder) -> f64 {
        decoder.zero_grad(backend);
        let scale = 1.0 / self.labelled() as f32;
        let sums = decoder.forward_backward(backend, &self.batch(), &Objective::default(), scale, 0).unwrap();
        mean(sums)
    }
}

/// Mean loss.
pub(crate) fn mean(sums: LossSums) -> f64 {
    sums.loss / sums.count as f64
}

/// The machine's best kernels on two threads.
pub(crate) fn backend() -> CpuBackend {
    CpuBackend::new(2, Isa::detect())
}

/// A buffer's numbers.
pub(crate) fn numbers(backend: &dyn Backend, buffer: &Buffer) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    backend.download(buffer, 0, &mut values);
    values
}

/// Name and gradient of every parameter.
pub(crate) fn gradients(backend: &dyn Backend, decoder: &Decoder) -> Vec<(String, Vec<f32>)> {
    decoder.parameters().iter().map(|p| (p.name.clone(), numbers(backend, &p.grad))).collect()
}

/// Largest difference relative to the largest magnitude of `expected`.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let difference = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| {
        assert!(a.is_finite(), "{a} among the results");
        m.max((a - b).abs())
    });
    if difference == 0.0 { 0.0 } else { difference / scale }
}

/// AdamW over a decoder's parameters, straight on the backend.
pub(crate) struct Optimizer {
    op: AdamW,
    moments: Vec<(Buffer, Buffer)>,
}

impl Optimizer {
    pub(crate) fn new(backend: &dyn Backend, decoder: &Decoder, lr: f64, weight_decay: f64) -> Self {
        let moment = |n: usize| backend.alloc(MemoryClass::Optimizer, Dtype::F32, n);
        Self {
            op: AdamW {
                lr,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay,
                step: 0,
                grad_scale: 1.0,
                rounding: Rounding::Nearest,
            },
            moments: decoder
                .parameters()
                .iter()
                .map(|p| (moment(p.elements()), moment(p.elements())))
                .collect(),
        }
    }

    pub(crate) fn update(&mut self, backend: &dyn Backend, decoder: &mut Decoder) {
        self.op.step += 1;
        for (parameter, (m, v)) in decoder.parameters_mut().iter_mut().zip(&mut self.moments) {
            backend.adamw(parameter.elements(), &self.op, &parameter.grad, &mut parameter.value, m, v);
        }
        decoder.after_update(backend);
    }
}
