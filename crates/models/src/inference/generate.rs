//! One request at a time.

use super::engine::Inference;
use super::request::{Finish, Request};
use crate::{Decoder, ModelError};
use foundry_kernels::Backend;
use std::ops::ControlFlow;

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// New tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

impl Inference {
    /// Runs one request to its end; what a conversation has in common with earlier ones is not computed again.
    /// `on_token` sees each new token and may stop the generation (stop strings are the caller's, who can decode).
    ///
    /// # Errors
    /// As [`Inference::submit`] and [`Inference::step`].
    pub fn generate(
        &mut self,
        decoder: &mut Decoder,
        backend: &dyn Backend,
        request: Request,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation, ModelError> {
        let id = self.submit(request)?;
        let (mut tokens, mut events) = (Vec::new(), Vec::new());
        loop {
            self.step(decoder, backend, &mut events)?;
            for event in events.drain(..).filter(|event| event.id == id) {
                tokens.extend(event.token);
                if event.token.is_some_and(|token| on_token(token).is_break()) {
                    self.cancel(id);
                    return Ok(Generation { tokens, finish: Finish::Stopped });
                }
                if let Some(finish) = event.finish {
                    return Ok(Generation { tokens, finish });
                }
            }
        }
    }
}
