//! A model of two matrices, small enough that a run of it takes milliseconds: an embedding, dropout, a head.

use foundry_comm::{Communicator, Solo};
use foundry_data::{Loader, PackedRow};
use foundry_engine::callbacks::{Callback, Checkpoint as CheckpointCallback, MetricsJsonl, Throughput};
use foundry_engine::checkpoint::{Checkpoint, CrashHook, Facts, no_crash};
use foundry_engine::optim::{AdamW, Optimizer};
use foundry_engine::{
    BoxedError, EngineError, Evaluation, Run, StepCount, Summary, Trainable, TrainingArgs, WriteFiles, fit,
};
use foundry_formats::StoredDtype;
use foundry_formats::safetensors::{Entry, Writer};
use foundry_kernels::{
    Backend, Buffer, Dtype, LinearCrossEntropy, LossSums, MemoryClass, ReferenceBackend, TokenLoss,
};
use foundry_models::{Batch, Objective, Parameter};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) const VOCAB: usize = 13;
pub(crate) const WIDTH: usize = 6;
const MAX_TOKENS: usize = 256;

/// What the model does for a step: each is told when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Gradients,
    Update,
}

/// Is told.
pub(crate) type Watch = Rc<dyn Fn(Done)>;

pub(crate) struct Bigram {
    /// Embedding and head, `[V, D]` each.
    parameters: [Parameter; 2],
    pub(crate) dropout: f32,
    /// A row that holds this token makes the loss NaN.
    pub(crate) poison: Option<u32>,
    pub(crate) watch: Watch,
    ids: Buffer,
    x: Buffer,
    dropped: Buffer,
    dx: Buffer,
    logits: Buffer,
}

impl Bigram {
    pub(crate) fn new(backend: &dyn Backend, width: usize) -> Self {
        let f32s = |len: usize| backend.alloc(MemoryClass::Workspace, Dtype::F32, len);
        let parameter = |name: &str| {
            let (mut value, grad) = (f32s(VOCAB * width), f32s(VOCAB * width));
            // Any fixed numbers between -0.5 and 0.5 will do.
            let start: Vec<f32> =
                (0..VOCAB * width).map(|i| ((i * 37 + name.len() * 11) % 101) as f32 / 101.0 - 0.5).collect();
            backend.upload(&start, &mut value, 0);
            Parameter { name: name.into(), shape: vec![VOCAB, width], value, grad, decay: true }
        };
        Self {
            parameters: [parameter("embed_tokens.weight"), parameter("lm_head.weight")],
            dropout: 0.0,
            poison: None,
            watch: Rc::new(|_| {}),
            ids: backend.alloc(MemoryClass::Workspace, Dtype::U32, MAX_TOKENS),
            x: f32s(MAX_TOKENS * width),
            dropped: f32s(MAX_TOKENS * width),
            dx: f32s(MAX_TOKENS * width),
            logits: f32s(VOCAB),
        }
    }

    fn width(&self) -> usize {
        self.parameters[0].shape[1]
    }

    /// Rows that predict a labelled token, and what they predict.
    fn targets(batch: &Batch<'_>) -> (Vec<u32>, Vec<u32>) {
        let mut start = 0;
        let mut pairs = Vec::new();
        for &len in batch.seq_lens {
            for i in start..start + len as usize - 1 {
                if batch.labels[i + 1] >= 0 {
                    pairs.push((i as u32, batch.labels[i + 1] as u32));
                }
            }
            start += len as usize;
        }
        pairs.into_iter().unzip()
    }

    fn pass(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        objective: TokenLoss,
        training: Option<(f32, u64)>,
    ) -> LossSums {
        let (tokens, width) = (batch.tokens.len(), self.width());
        let (rows, targets) = Self::targets(batch);
        let [embed, head] = &mut self.parameters;
        backend.upload_u32(batch.tokens, &mut self.ids);
        backend.embedding_forward(tokens, width, &self.ids, &embed.value, &mut self.x);
        let is_dropping = training.is_some() && self.dropout > 0.0;
        let n = tokens * width;
        if is_dropping {
            backend.dropout(n, self.dropout, training.unwrap().1, &self.x, &mut self.dropped);
        }
        let x = if is_dropping { &self.dropped } else { &self.x };
        let op = LinearCrossEntropy {
            rows: &rows,
            targets: &targets,
            width,
            vocab: VOCAB,
            objective,
            grad_scale: training.map_or(0.0, |(scale, _)| scale),
        };
        let Some((_, seed)) = training else {
            return backend.linear_cross_entropy(
                &op,
                tokens,
                x,
                &head.value,
                &mut self.logits,
                None,
                None,
                None,
            );
        };
        let dx = Some(&mut self.dx);
        let dhead = Some(&mut head.grad);
        let sums =
            backend.linear_cross_entropy(&op, tokens, x, &head.value, &mut self.logits, dx, dhead, None);
        if is_dropping {
            backend.dropout(n, self.dropout, seed, &self.dx, &mut self.dropped);
        }
        let dx = if is_dropping { &self.dropped } else { &self.dx };
        backend.embedding_backward(tokens, width, &self.ids, dx, &mut embed.grad);
        sums
    }
}

impl Trainable for Bigram {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }
    fn zero_grad(&mut self, backend: &dyn Backend) {
        for parameter in &mut self.parameters {
            backend.fill(parameter.grad.len(), 0.0, &mut parameter.grad);
        }
    }
    fn forward_backward(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        objective: &Objective,
        grad_scale: f32,
        seed: u64,
    ) -> Result<LossSums, BoxedError> {
        let mut sums = self.pass(backend, batch, objective.loss, Some((grad_scale, seed)));
        if self.poison.is_some_and(|token| batch.tokens.contains(&token)) {
            sums.loss = f64::NAN;
        }
        (self.watch)(Done::Gradients);
        Ok(sums)
    }
    fn forward_loss(&mut self, backend: &dyn Backend, batch: &Batch<'_>) -> Result<LossSums, BoxedError> {
        Ok(self.pass(backend, batch, TokenLoss::CrossEntropy, None))
    }
    fn after_update(&mut self, _: &dyn Backend) {
        (self.watch)(Done::Update);
    }
    fn gather(&self, backend: &dyn Backend) -> Result<WriteFiles, BoxedError> {
        let tensors = self.parameters.each_ref().map(|p| {
            let entry = Entry::new(p.name.clone(), StoredDtype::F32, &p.shape);
            (entry, backend.share(&p.value))
        });
        Ok(Box::new(move |dir| {
            let entries = tensors.each_ref().map(|(entry, _)| entry.clone());
            let mut writer = Writer::create(&dir.join("model.safetensors"), &entries, &[])?;
            for (entry, shared) in tensors {
                let mut values = vec![0.0; shared.len()];
                shared.read(0, &mut values);
                writer.write_f32(&entry.name, &values)?;
            }
            writer.finish()?;
            std::fs::write(dir.join("config.json"), "{\"model_type\": \"bigram\"}\n")?;
            Ok(())
        }))
    }
}

/// Contents of a buffer.
pub(crate) fn values(backend: &dyn Backend, buffer: &Buffer) -> Vec<f32> {
    let mut values = vec![0.0; buffer.len()];
    backend.download(buffer, 0, &mut values);
    values
}

/// Values of a model's parameters, as [`Outcome::parameters`] holds them.
pub(crate) fn model_values(backend: &dyn Backend, model: &Bigram) -> Vec<Vec<f32>> {
    model.parameters().iter().map(|parameter| values(backend, &parameter.value)).collect()
}

/// `count` rows of one to three sequences each, of uneven lengths and with uneven numbers of labels; the next token
/// follows from the one before, so that there is something to learn. Row `i` alone holds nothing special unless
/// `i == marked`: it then begins with token 12.
pub(crate) fn rows(count: usize, marked: Option<usize>) -> Arc<Vec<PackedRow>> {
    let row = |i: usize| {
        let mut row = PackedRow { tokens: vec![], seq_lens: vec![], labels: vec![] };
        for s in 0..1 + i % 3 {
            let len = 3 + (i * 5 + s * 3) % 7;
            for t in 0..len {
                let token = ((i + s + t) % 12) as u32;
                let is_labelled = t > 0 && !(t + i).is_multiple_of(2 + i % 3);
                row.tokens.push(token);
                row.labels.push(if is_labelled { token as i32 } else { -100 });
            }
            row.seq_lens.push(len as u32);
        }
        if marked == Some(i) {
            row.tokens[0] = 12;
        }
        row
    };
    Arc::new((0..count).map(row).collect())
}

/// What varies between the runs of these tests.
pub(crate) struct Setup<'a> {
    pub(crate) args: TrainingArgs,
    pub(crate) rows: Arc<Vec<PackedRow>>,
    pub(crate) held_out: Option<Arc<Vec<PackedRow>>>,
    pub(crate) dropout: f32,
    pub(crate) poison: Option<u32>,
    pub(crate) watch: Watch,
    pub(crate) width: usize,
    pub(crate) output_dir: Option<&'a Path>,
    pub(crate) resume: Option<&'a Checkpoint>,
    pub(crate) crash: CrashHook,
    pub(crate) facts: Facts,
    pub(crate) extra: Vec<Box<dyn Callback + 'a>>,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(args: TrainingArgs) -> Self {
        Self {
            args,
            rows: rows(12, None),
            held_out: None,
            dropout: 0.0,
            poison: None,
            watch: Rc::new(|_| {}),
            width: WIDTH,
            output_dir: None,
            resume: None,
            crash: no_crash(),
            facts: Facts::from([("model".to_owned(), "bigram".into())]),
            extra: Vec::new(),
        }
    }

    /// Runs on one rank of `comm`.
    pub(crate) fn run_on(self, comm: &dyn Communicator) -> Outcome {
        let backend = ReferenceBackend::default();
        let mut model = Bigram::new(&backend, self.width);
        model.dropout = self.dropout;
        model.poison = self.poison;
        model.watch = self.watch;
        let mut optimizer = AdamW::allocate(&backend, model.parameters(), &self.args);
        let (rank, world) = (comm.rank(), comm.world_size());
        let batch = self.args.per_device_train_batch_size;
        let mut loader = Loader::new(self.rows, batch, self.args.data_seed(), true, rank, world);
        let mut callbacks: Vec<Box<dyn Callback + 'a>> = self.extra;
        if let Some(dir) = self.output_dir.filter(|_| rank == 0) {
            callbacks.push(Box::new(Throughput::default()));
            callbacks.push(Box::new(MetricsJsonl::new(dir)));
            let checkpoint = CheckpointCallback::new(dir, self.args.save_total_limit);
            callbacks.push(Box::new(checkpoint.with_crash_hook(self.crash)));
        }
        let held_out = self.held_out;
        let evaluation = held_out.as_ref().map(|rows| Evaluation { rows, max_tokens: 64 });
        let summary = fit(&mut Run {
            args: &self.args,
            backend: &backend,
            comm,
            model: &mut model,
            optimizer: &mut optimizer,
            loader: &mut loader,
            evaluation,
            callbacks,
            resume: self.resume,
            facts: self.facts,
        });
        let parameters = model.parameters().iter().map(|p| values(&backend, &p.value)).collect();
        let state = optimizer.state().iter().map(|tensor| values(&backend, tensor.buffer)).collect();
        Outcome { summary, parameters, state }
    }

    pub(crate) fn run(self) -> Outcome {
        self.run_on(&Solo)
    }
}

/// Where a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) summary: Result<Summary, EngineError>,
    pub(crate) parameters: Vec<Vec<f32>>,
    pub(crate) state: Vec<Vec<f32>>,
}

impl Outcome {
    /// Bits of everything trained and of the optimiser's state.
    pub(crate) fn bits(&self) -> Vec<u32> {
        self.parameters.iter().chain(&self.state).flatten().map(|x| x.to_bits()).collect()
    }

    /// The largest difference between two runs' parameters.
    pub(crate) fn distance(&self, other: &Outcome) -> f32 {
        let pairs = self.parameters.iter().flatten().zip(other.parameters.iter().flatten());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }
}

/// Arguments of most runs: `steps` steps of `batch · accumulation` rows.
pub(crate) fn args(steps: i64, batch: usize, accumulation: usize) -> TrainingArgs {
    TrainingArgs {
        max_steps: steps,
        per_device_train_batch_size: batch,
        gradient_accumulation_steps: accumulation,
        learning_rate: 0.02,
        warmup_steps: StepCount::steps(2),
        weight_decay: 0.01,
        logging_steps: StepCount::steps(1),
        seed: 3,
        ..TrainingArgs::default()
    }
}
