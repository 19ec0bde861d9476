//! RMSNorm (Zhang & Sennrich 2019; transformers 5.23 `LlamaRMSNorm`) with its weight.

use crate::DecoderConfig;
use crate::parameter::{Parameter, Weight, WeightMaker};
use crate::pass::Pass;
use crate::tuning::Plan;
use foundry_kernels::Buffer;

/// A norm over the model's width.
pub(crate) struct Norm {
    pub(crate) weight: Weight,
}

impl Norm {
    pub(crate) fn allocate(
        maker: &mut WeightMaker<'_>,
        plan: &Plan<'_>,
        module: &str,
        config: &DecoderConfig,
    ) -> Self {
        Self { weight: maker.vector(plan.own(module, "weight"), config.hidden_size) }
    }

    /// `h = norm(x)`; `x_td` f32, `h_td` operand, `rstd_t` f32.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        parameters: &[Parameter],
        x: &Buffer,
        h: &mut Buffer,
        rstd: &mut Buffer,
    ) {
        let (width, eps) = (pass.config.hidden_size, pass.config.rms_norm_eps);
        pass.backend.rmsnorm_forward(pass.tokens, width, eps, x, self.weight.operand(parameters), h, rstd);
    }

    /// `dx += …` from `dh_td`, and the weight's gradient if it is trained.
    pub(crate) fn backward(
        &self,
        pass: &Pass<'_>,
        parameters: &mut [Parameter],
        dh: &Buffer,
        x: &Buffer,
        rstd: &Buffer,
        dx: &mut Buffer,
    ) {
        let (weight, grad) = self.weight.operand_and_grad(parameters);
        pass.backend.rmsnorm_backward(pass.tokens, pass.config.hidden_size, dh, x, weight, rstd, dx, grad);
    }
}
