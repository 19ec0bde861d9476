//! Floating point operations of a token: multiplications and additions of matrix products.

use crate::Decoder;
use crate::linear::Linear;

/// Operations per token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flops {
    /// Of the forward.
    pub forward: f64,
    /// Of the backward, including activations that checkpointing computes again.
    pub backward: f64,
}

impl Flops {
    /// Forward and backward.
    pub fn total(&self) -> f64 {
        self.forward + self.backward
    }
}

impl Decoder {
    /// Operations per token of training (forward, and the backward that this tuning needs) for sequences of `seq`
    /// tokens, every token having a label. Norms, rotations and activations are left out: below 1 %.
    pub fn flops_per_token(&self, seq: usize) -> f64 {
        self.flops(seq).total()
    }

    /// The same, forward and backward apart.
    pub fn flops(&self, seq: usize) -> Flops {
        let mut sum = Flops::default();
        let attention = self.attention_flops(seq);
        let lowest = self.lowest();
        let is_embedding_trained = self.embed_tokens.is_trained();
        for (layer, block) in self.blocks.iter().enumerate() {
            let before = sum.forward;
            for linear in block.linears() {
                sum.forward += forward(linear);
            }
            sum.forward += attention;
            if self.recomputes(layer) {
                // `down_proj` is not needed again, but for its branch.
                sum.backward += sum.forward - before - 2.0 * elements(&block.mlp.down_proj);
            }
            if layer < lowest {
                continue;
            }
            let below = is_embedding_trained || layer > lowest;
            let reach = block.reach(below);
            for (linear, wants_input) in block.linears().into_iter().zip(reach.inputs) {
                sum.backward += backward(linear, wants_input);
            }
            // Scores again, dV, dP, dQ, dK: five products where the forward has two.
            sum.backward += if reach.attention { 2.5 * attention } else { 0.0 };
        }
        let head = 2.0 * (self.config.hidden_size * self.config.vocab_size) as f64;
        sum.forward += head;
        if !self.parameters.is_empty() {
            let head_weight = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
            let below_head =
                is_embedding_trained || lowest < self.blocks.len() || self.norm.weight.is_trained();
            sum.backward += head * (f64::from(head_weight.is_trained()) + f64::from(below_head));
        }
        sum
    }

    /// Two products of a query with every key it sees, on average over the sequence.
    fn attention_flops(&self, seq: usize) -> f64 {
        let seq = seq.max(1) as f64;
        let window = self.config.sliding_window.map_or(seq, |window| (window as f64).min(seq));
        let keys = (window * (window + 1.0) / 2.0 + (seq - window) * window) / seq;
        4.0 * self.config.query_width() as f64 * keys
    }
}

fn elements(linear: &Linear) -> f64 {
    (linear.inputs * linear.outputs) as f64
}

fn branch(linear: &Linear) -> f64 {
    linear.rank().map_or(0.0, |rank| 2.0 * (rank * (linear.inputs + linear.outputs)) as f64)
}

fn forward(linear: &Linear) -> f64 {
    2.0 * elements(linear) + branch(linear)
}

fn backward(linear: &Linear, wants_input: bool) -> f64 {
    let products = f64::from(linear.weight.is_trained()) + f64::from(wants_input);
    // dA, dB and dz whenever there is a branch; dz·A for the input.
    let dz_a = linear.rank().map_or(0.0, |rank| 2.0 * (rank * linear.inputs) as f64) * f64::from(wants_input);
    let dz_and_weights = match linear.rank() {
        Some(rank) if linear.is_trained() || wants_input => {
            branch(linear) + 2.0 * (rank * linear.outputs) as f64
        }
        _ => 0.0,
    };
    2.0 * elements(linear) * products + dz_and_weights + dz_a
}
