//! The one decoder: its forward and its backward, facing each other.
//!
//! The backward is the forward read upwards, derived by hand; nothing is computed for frozen weights: no weight
//! gradient, and no activation gradient below the lowest trained module.

use crate::acts::{BlockActs, Gradients, Remade};
use crate::block::Block;
use crate::families::Slot;
use crate::head::Head;
use crate::inference::{PagedCache, PagedRow};
use crate::lora::{BranchScratch, TokenRows};
use crate::norm::Norm;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::{Pass, RowPlan};
use crate::storage::{Kept, QuantizedWeights, Storage};
use crate::tuning::{Plan, Tuning};
use crate::{Batch, DecoderConfig, ModelError, Objective};
use foundry_kernels::{Allocator, Backend, Buffer, Dtype, LossSums, MemoryClass, RowLoss, TokenLoss};

/// Far above any run, and small enough for the bytes of every activation to fit 64 bits.
const LONGEST_ROW: usize = 1 << 28;

/// A decoder with its buffers: weights, parameters, activations and scratch for rows of up to `max_tokens`.
pub struct Decoder {
    pub(crate) config: DecoderConfig,
    pub(crate) tuning: Tuning,
    pub(crate) compute: Dtype,
    /// Frozen weights in few bits.
    pub(crate) quantization: Option<QuantizedWeights>,
    pub(crate) max_tokens: usize,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) embed_tokens: Weight,
    /// Rows of the embedding that are trained by themselves.
    pub(crate) token_rows: Option<TokenRows>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) norm: Norm,
    /// `None`: the head is the embedding.
    pub(crate) lm_head: Option<Weight>,
    /// The lowest block with anything trained at or below it; the number of blocks if there is none.
    lowest: usize,
    /// What each block keeps of a forward.
    kept: Vec<Kept>,
    pub(crate) buffers: Buffers,
    row: RowPlan,
}

/// Everything that one row passes through.
pub(crate) struct Buffers {
    ids: Buffer,
    positions: Buffer,
    rope_table: Buffer,
    /// The rotation has been computed.
    is_rope_ready: bool,
    /// The residual stream `x_td`, f32.
    x: Buffer,
    /// Input of each block from `lowest` on, f32.
    inputs: Vec<Buffer>,
    acts: Vec<BlockActs>,
    /// Which of `acts` each block uses.
    slots: Vec<usize>,
    pub(crate) scratch: BranchScratch,
    remade: Remade,
    /// `None`: inference.
    grads: Option<Gradients>,
    head: Head,
}

impl Decoder {
    /// Allocates weights, gradients, activations and scratch through `alloc`; with a
    /// [`Meter`](foundry_kernels::Meter) that is how a plan counts bytes. Afterwards nothing is allocated per row.
    ///
    /// `compute`: [`Dtype::F32`] or [`Dtype::Bf16`], the format of the operands of products. `max_tokens`: the longest
    /// packed row. `storage`: what is kept and in which form; `true` and `false` are transformers'
    /// `gradient_checkpointing`.
    ///
    /// # Errors
    /// LoRA settings that do not fit the model ([`ModelError::Lora`]).
    ///
    /// # Panics
    /// If `compute` is neither f32 nor bf16, or f32 where parameters are to be kept in bf16.
    pub fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        tuning: &Tuning,
        compute: Dtype,
        max_tokens: usize,
        storage: impl Into<Storage>,
    ) -> Result<Self, ModelError> {
        assert!(matches!(compute, Dtype::F32 | Dtype::Bf16), "operands are f32 or bf16, not {compute:?}");
        let Storage { checkpointing, bf16_parameters, quantization } = storage.into();
        assert!(!bf16_parameters || compute == Dtype::Bf16, "parameters in bf16 need operands in bf16");
        if max_tokens > LONGEST_ROW {
            return Err(ModelError::ConfigValue {
                key: "max_length times the rows of a batch".into(),
                found: max_tokens.to_string(),
                expected: format!("at most {LONGEST_ROW} tokens in a packed row"),
            });
        }
        let family = config.family;
        let mut plan = Plan::new(tuning, config)?;
        let mut maker = WeightMaker {
            alloc,
            compute,
            bf16_parameters,
            quantization: quantization.clone(),
            parameters: Vec::new(),
        };
        let embed_tokens = embedding(&mut maker, &plan, &family.module(Slot::EmbedTokens, 0), config);
        let is_shared = config.tie_word_embeddings && !plan.unties_head(config);
        let token_rows = plan.token_rows(config).map(|(naming, indices)| {
            TokenRows::allocate(&mut maker, naming, indices, config, max_tokens, is_shared)
        });
        let layers = 0..config.num_hidden_layers;
        let blocks: Vec<Block> =
            layers.map(|layer| Block::allocate(&mut maker, &mut plan, config, layer)).collect();
        let norm = Norm::allocate(&mut maker, &plan, &family.module(Slot::Norm, 0), config);
        // A tied head becomes a tensor of its own when only one of the two is trained, as in PEFT.
        let head_module = family.module(Slot::LmHead, 0);
        let lm_head = (!is_shared).then(|| embedding(&mut maker, &plan, &head_module, config));
        let parameters = maker.parameters;
        let lowest = match embed_tokens.is_trained() || trains_rows(token_rows.as_ref()) {
            true => 0,
            false => blocks.iter().position(Block::is_trained).unwrap_or(blocks.len()),
        };
        let trains = !parameters.is_empty();
        let kept: Vec<Kept> = (0..blocks.len())
            .map(|layer| match layer.checked_sub(lowest).filter(|_| trains) {
                Some(index) => checkpointing.of(index),
                None => Kept::Nothing,
            })
            .collect();
        let buffers = Buffers::allocate(alloc, config, &plan, &blocks, compute, max_tokens, &kept);
        Ok(Self {
            config: config.clone(),
            tuning: tuning.clone(),
            compute,
            quantization,
            max_tokens,
            parameters,
            embed_tokens,
            token_rows,
            blocks,
            norm,
            lm_head,
            lowest,
            kept,
            buffers,
            row: RowPlan::default(),
        })
    }

    /// One row forward and backward; gradients are added to those of earlier rows.
    ///
    /// `grad_scale`: 1 / labelled tokens of the whole optimiser step. `seed`: of dropout and noise, new for each call.
    /// Returns sums over the labelled tokens of this row, without `grad_scale`.
    ///
    /// # Errors
    /// A row that is too long or malformed; a decoder without trained weights.
    pub fn forward_backward(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        objective: &Objective,
        grad_scale: f32,
        seed: u64,
    ) -> Result<LossSums, ModelError> {
        if self.parameters.is_empty() {
            return Err(ModelError::NothingToTrain);
        }
        self.lay_out(backend, batch)?;
        if self.row.rows.is_empty() {
            return Ok(LossSums::default());
        }
        if let Some(rows) = &mut self.token_rows {
            rows.lay_out(backend, batch.tokens);
        }
        let noise = objective.noise_magnitude(batch.tokens.len(), self.config.hidden_size);
        self.forward(backend, Some(seed), noise, true);
        Ok(self.backward(backend, objective.loss, grad_scale, seed))
    }

    /// Loss of one row without dropout, noise and gradients. `per_row`: receives the result of each labelled token.
    ///
    /// # Errors
    /// A row that is too long or malformed.
    pub fn forward_loss(
        &mut self,
        backend: &dyn Backend,
        batch: &Batch<'_>,
        per_row: Option<&mut Vec<RowLoss>>,
    ) -> Result<LossSums, ModelError> {
        self.lay_out(backend, batch)?;
        let per_row = per_row.map(|results| {
            results.clear();
            results.resize(self.row.rows.len(), RowLoss::default());
            results.as_mut_slice()
        });
        if self.row.rows.is_empty() {
            return Ok(LossSums::default());
        }
        self.forward(backend, None, None, false);
        let Self { config, parameters, embed_tokens, norm, lm_head, buffers, row, .. } = self;
        let pass = pass_over(backend, config, row, &buffers.positions, &buffers.rope_table, None);
        let weight = lm_head.as_ref().unwrap_or(embed_tokens).operand(parameters);
        buffers.head.normalize(&pass, norm, parameters, &buffers.x);
        Ok(buffers.head.loss(&pass, row, TokenLoss::CrossEntropy, weight, per_row))
    }

    /// From the token ids in `ids` to the residual stream in `x`. `keep`: what the backward reads is kept.
    fn forward(&mut self, backend: &dyn Backend, seed: Option<u64>, noise: Option<f32>, keep: bool) {
        let Self { config, parameters, embed_tokens, blocks, lowest, buffers, row, .. } = self;
        let Buffers { ids, positions, rope_table, x, inputs, acts, slots, scratch, remade, .. } = buffers;
        let pass = pass_over(backend, config, row, positions, rope_table, seed);
        let (tokens, width) = (pass.tokens, config.hidden_size);

        backend.embedding_forward(tokens, width, ids, embed_tokens.operand(parameters), x);
        if let (Some(magnitude), Some(seed)) = (noise, seed) {
            backend.add_uniform_noise(tokens * width, magnitude, Pass::noise_seed(seed), x);
        }
        for (layer, block) in blocks.iter().enumerate() {
            if keep && layer >= *lowest {
                backend.copy(tokens * width, x, 0, &mut inputs[layer - *lowest], 0);
            }
            block.forward(&pass, parameters, x, &mut acts[slots[layer]], scratch, remade, None);
        }
    }

    /// From the residual stream in `x` to gradients: the forward read upwards, down to the lowest trained module.
    fn backward(&mut self, backend: &dyn Backend, loss: TokenLoss, grad_scale: f32, seed: u64) -> LossSums {
        let Self {
            config,
            parameters,
            embed_tokens,
            token_rows,
            blocks,
            norm,
            lm_head,
            lowest,
            kept,
            buffers,
            row,
            ..
        } = self;
        let Buffers {
            ids, positions, rope_table, x, inputs, acts, slots, scratch, remade, grads, head, ..
        } = buffers;
        let grads = grads.as_mut().expect("a decoder with parameters has gradient buffers");
        let pass = pass_over(backend, config, row, positions, rope_table, Some(seed));
        let (tokens, width) = (pass.tokens, config.hidden_size);
        let is_embedding_trained = embed_tokens.is_trained() || trains_rows(token_rows.as_ref());
        let below_norm = is_embedding_trained || *lowest < blocks.len();

        head.normalize(&pass, norm, parameters, x);
        let weight = lm_head.as_ref().unwrap_or(embed_tokens);
        let dh = (below_norm || norm.weight.is_trained()).then_some(&mut grads.dh);
        let rows = token_rows.as_mut().and_then(|rows| rows.head_gradient(backend));
        let sums = head.loss_and_gradients(&pass, row, loss, grad_scale, weight, parameters, [dh, rows]);
        if below_norm || norm.weight.is_trained() {
            backend.fill(tokens * width, 0.0, &mut grads.dx);
            norm.backward(&pass, parameters, &grads.dh, x, head.rstd(), &mut grads.dx);
        }
        // Blocks that keep their input only share one set of activations, which now holds those of the highest one.
        let mut is_shared_set_theirs = true;
        for (layer, block) in blocks.iter().enumerate().skip(*lowest).rev() {
            let (input, acts) = (&inputs[layer - *lowest], &mut acts[slots[layer]]);
            if kept[layer] == Kept::Input && !std::mem::take(&mut is_shared_set_theirs) {
                backend.copy(tokens * width, input, 0, x, 0);
                block.recompute(&pass, parameters, x, acts, scratch, remade);
            }
            let below = is_embedding_trained || layer > *lowest;
            block.backward(&pass, parameters, input, acts, grads, scratch, remade, below);
        }
        if let Some(rows) = token_rows {
            rows.collect(backend, tokens, &grads.dx, parameters);
        }
        if let Some(dtable) = embed_tokens.grad(parameters) {
            backend.embedding_backward(tokens, width, ids, &grads.dx, dtable);
        }
        sums
    }

    /// Logits of every token of a row: `[T, V]`.
    ///
    /// # Errors
    /// A row that is too long or malformed.
    pub fn logits(
        &mut self,
        backend: &dyn Backend,
        tokens: &[u32],
        seq_lens: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        let rows: Vec<u32> = (0..tokens.len() as u32).collect();
        self.logits_of(backend, tokens, seq_lens, &rows)
    }

    /// Logits of the last token of every sequence: `[sequences, V]`.
    ///
    /// # Errors
    /// A row that is too long or malformed.
    pub fn last_logits(
        &mut self,
        backend: &dyn Backend,
        tokens: &[u32],
        seq_lens: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        let ends = seq_lens.iter().scan(0u32, |end, &len| {
            *end = end.saturating_add(len);
            Some(end.saturating_sub(1))
        });
        let rows: Vec<u32> = ends.collect();
        self.logits_of(backend, tokens, seq_lens, &rows)
    }

    fn logits_of(
        &mut self,
        backend: &dyn Backend,
        tokens: &[u32],
        seq_lens: &[u32],
        rows: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        self.lay_out(backend, &Batch { tokens, seq_lens, labels: &[] })?;
        self.forward(backend, None, None, false);
        let Self { config, parameters, embed_tokens, norm, lm_head, buffers, row, .. } = self;
        let pass = pass_over(backend, config, row, &buffers.positions, &buffers.rope_table, None);
        buffers.head.normalize(&pass, norm, parameters, &buffers.x);
        let weight = lm_head.as_ref().unwrap_or(embed_tokens).operand(parameters);
        let mut logits = Vec::new();
        buffers.head.logits(&pass, weight, rows, &mut logits);
        Ok(logits)
    }

    /// A row whose sequences go on from what is in the cache, up to the normed stream; keys and values are added to the
    /// cache. The row has at most `max_tokens` tokens, all inside the vocabulary.
    pub(crate) fn forward_paged(&mut self, backend: &dyn Backend, cache: &mut PagedCache, row: &PagedRow) {
        assert!(row.tokens.len() <= self.max_tokens, "a row of {} tokens", row.tokens.len());
        cache.prepare(backend, &self.config);
        self.row.positions.clone_from(&row.positions);
        self.row.spans.clone_from(&row.spans);
        let Self { config, parameters, embed_tokens, blocks, norm, buffers, row: plan, .. } = self;
        let Buffers { ids, positions, x, acts, slots, scratch, remade, head, .. } = buffers;
        backend.upload_u32(&row.tokens, ids);
        backend.upload_u32(&row.positions, positions);
        let table = embed_tokens.operand(parameters);
        backend.embedding_forward(row.tokens.len(), config.hidden_size, ids, table, x);
        for (layer, block) in blocks.iter().enumerate() {
            // Laid out by hand: the rotation's table and one layer's part of the cache are borrowed side by side.
            let (rope_table, part) = cache.table_and_layer(layer, row);
            let pass = pass_over(backend, config, plan, positions, rope_table, None);
            block.forward(&pass, parameters, x, &mut acts[slots[layer]], scratch, remade, Some(part));
        }
        let pass = pass_over(backend, config, plan, positions, &cache.rope_table, None);
        head.normalize(&pass, norm, parameters, x);
    }

    /// Logits of some rows of the last [`Decoder::forward_paged`]: `[rows, V]`.
    pub(crate) fn paged_logits(&mut self, backend: &dyn Backend, rows: &[u32], logits: &mut Vec<f32>) {
        let Self { config, parameters, embed_tokens, lm_head, buffers, row, .. } = self;
        let pass = pass_over(backend, config, row, &buffers.positions, &buffers.rope_table, None);
        let weight = lm_head.as_ref().unwrap_or(embed_tokens).operand(parameters);
        logits.clear();
        buffers.head.logits(&pass, weight, rows, logits);
    }

    /// How likely each of `targets` is after some rows of the last [`Decoder::forward_paged`], ascending.
    pub(crate) fn paged_scores(
        &mut self,
        backend: &dyn Backend,
        rows: Vec<u32>,
        targets: Vec<u32>,
        results: &mut [RowLoss],
    ) {
        if rows.is_empty() {
            return;
        }
        (self.row.rows, self.row.targets) = (rows, targets);
        let Self { config, parameters, embed_tokens, lm_head, buffers, row, .. } = self;
        let pass = pass_over(backend, config, row, &buffers.positions, &buffers.rope_table, None);
        let weight = lm_head.as_ref().unwrap_or(embed_tokens).operand(parameters);
        buffers.head.loss(&pass, row, TokenLoss::CrossEntropy, weight, Some(results));
    }

    /// The lowest block with anything trained at or below it.
    pub(crate) fn lowest(&self) -> usize {
        self.lowest
    }

    /// The activations of block `layer` are computed again in the backward; those of the highest such block are still
    /// there.
    pub(crate) fn recomputes(&self, layer: usize) -> bool {
        let is_input = |kept: &Kept| *kept == Kept::Input;
        is_input(&self.kept[layer]) && self.kept[layer + 1..].iter().any(is_input)
    }

    /// Checks a row and brings it to the device.
    fn lay_out(&mut self, backend: &dyn Backend, batch: &Batch<'_>) -> Result<(), ModelError> {
        self.row.fill(batch, self.config.vocab_size, self.max_tokens)?;
        let Buffers { ids, positions, rope_table, is_rope_ready, .. } = &mut self.buffers;
        if !*is_rope_ready {
            backend.upload(&self.config.rope.table(self.config.head_dim, self.max_tokens), rope_table, 0);
            *is_rope_ready = true;
        }
        backend.upload_u32(batch.tokens, ids);
        backend.upload_u32(&self.row.positions, positions);
        Ok(())
    }
}

fn trains_rows(rows: Option<&TokenRows>) -> bool {
    rows.is_some_and(|rows| rows.values.is_trained())
}

/// A weight of the embedding's shape.
fn embedding(maker: &mut WeightMaker<'_>, plan: &Plan<'_>, module: &str, config: &DecoderConfig) -> Weight {
    maker.matrix(plan.own(module, "weight"), [config.vocab_size, config.hidden_size])
}

fn pass_over<'a>(
    backend: &'a dyn Backend,
    config: &'a DecoderConfig,
    row: &'a RowPlan,
    positions: &'a Buffer,
    rope_table: &'a Buffer,
    dropout_seed: Option<u64>,
) -> Pass<'a> {
    let tokens = row.positions.len();
    Pass { backend, config, tokens, spans: &row.spans, positions, rope_table, dropout_seed }
}

impl Buffers {
    /// `kept`: what each block keeps. Those that keep no activations share one set.
    fn allocate(
        alloc: &dyn Allocator,
        config: &DecoderConfig,
        plan: &Plan<'_>,
        blocks: &[Block],
        compute: Dtype,
        max_tokens: usize,
        kept: &[Kept],
    ) -> Self {
        let buffer =
            |class: MemoryClass, dtype: Dtype, width: usize| alloc.alloc(class, dtype, max_tokens * width);
        let width = config.hidden_size;
        let trains = plan.trains();
        let acts_of = |users: &[&Block], kept: Kept| {
            BlockActs::allocate(alloc, config, users, compute, max_tokens, trains, kept)
        };
        let mut acts = Vec::new();
        let (mut slots, mut sharing) = (vec![usize::MAX; blocks.len()], Vec::new());
        for (layer, (block, kept)) in blocks.iter().zip(kept).enumerate() {
            if matches!(kept, Kept::All | Kept::Products) {
                slots[layer] = acts.len();
                acts.push(acts_of(&[block], *kept));
            } else {
                sharing.push(block);
            }
        }
        slots.iter_mut().filter(|slot| **slot == usize::MAX).for_each(|slot| *slot = acts.len());
        let remakes = kept.contains(&Kept::Products);
        if !sharing.is_empty() {
            acts.push(acts_of(&sharing, if remakes { Kept::Products } else { Kept::Input }));
        }
        let inputs = kept.iter().filter(|kept| **kept != Kept::Nothing);
        Self {
            ids: buffer(MemoryClass::Workspace, Dtype::U32, 1),
            positions: buffer(MemoryClass::Workspace, Dtype::U32, 1),
            rope_table: buffer(MemoryClass::Workspace, Dtype::F32, config.head_dim),
            is_rope_ready: false,
            x: buffer(MemoryClass::Activations, Dtype::F32, width),
            inputs: inputs.map(|_| buffer(MemoryClass::Activations, Dtype::F32, width)).collect(),
            acts,
            slots,
            remade: Remade::allocate(alloc, config, compute, max_tokens, remakes),
            scratch: BranchScratch::allocate(
                alloc,
                plan,
                compute,
                max_tokens,
                config.hidden_size.max(config.intermediate_size).max(config.query_width()),
            ),
            grads: trains.then(|| Gradients::allocate(alloc, config, compute, max_tokens)),
            head: Head::allocate(alloc, config, compute, max_tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_config;
    use foundry_kernels::ReferenceBackend;

    /// What the first block of a fully trained decoder read: the embeddings, with noise if there was any.
    fn embedded(objective: &Objective) -> Vec<f32> {
        let backend = ReferenceBackend::default();
        let tokens: Vec<u32> = (0..16).collect();
        let labels: Vec<i32> = (0..16).collect();
        let batch = Batch { tokens: &tokens, seq_lens: &[10, 6], labels: &labels };
        let mut decoder =
            Decoder::allocate(&backend, &test_config(), &Tuning::Full, Dtype::F32, 20, false).unwrap();
        decoder.init_random(&backend, 1, 0.02);
        decoder.forward_backward(&backend, &batch, objective, 1.0, 7).unwrap();
        let mut values = vec![0.0; tokens.len() * test_config().hidden_size];
        backend.download(&decoder.buffers.inputs[0], 0, &mut values);
        values
    }

    #[test]
    fn neftunes_noise_on_the_embeddings_fills_its_bounds() {
        let plain = embedded(&Objective::default());
        let noisy = embedded(&Objective { neftune_alpha: Some(5.0), ..Objective::default() });
        let noise = || noisy.iter().zip(&plain).map(|(a, b)| a - b);
        // α/√(T·D), T of the row and not of the room for it.
        let m = 5.0 / 128f32.sqrt();
        let [low, high] = [noise().fold(0.0, f32::min), noise().fold(0.0, f32::max)];
        // The sum is rounded to f32: far less than 1e-6 here. All 128 draws within 0.9 of a side: one in 900.
        assert!(high <= m + 1e-6 && low >= -m - 1e-6, "{low} {high}, bound {m}");
        assert!(high > 0.9 * m && low < -0.9 * m, "{low} {high}, bound {m}");
        let mean_square = noise().map(|x| x * x).sum::<f32>() / 128.0;
        // The variance of U(-m, m) is m²/3; over 128 draws its estimate has a relative deviation of 7.9 %.
        assert!((mean_square / (m * m / 3.0) - 1.0).abs() < 0.3, "{mean_square}");
    }
}
