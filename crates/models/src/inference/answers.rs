//! Requests whose answers are text: decoded as they come, and ended by stop strings.

use super::engine::Inference;
use super::request::{Finish, Request, RequestId, TokenScore};
use super::text::{TextStream, special_stops};
use crate::{Decoder, ModelError};
use foundry_formats::Tokenizer;
use foundry_kernels::Backend;
use std::collections::HashMap;

/// The texts of an [`Inference`]'s open requests.
pub struct Answers<'a> {
    tokenizer: &'a Tokenizer,
    open: HashMap<RequestId, TextStream<'a>>,
}

/// News of a request: a new token, text that can be shown, the end.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Whose.
    pub id: RequestId,
    /// The new token.
    pub token: Option<u32>,
    /// As in [`Event`](super::Event).
    pub scores: Vec<TokenScore>,
    /// Text that is certain now; it may belong to earlier tokens too.
    pub text: String,
    /// It was the last news.
    pub finish: Option<Finish>,
}

impl<'a> Answers<'a> {
    /// No requests yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, open: HashMap::new() }
    }

    /// As [`Inference::submit`]. `stops`: texts that end the answer and are not part of it; a special token among them
    /// is an end of sequence.
    ///
    /// # Errors
    /// As [`Inference::submit`].
    pub fn submit(
        &mut self,
        inference: &mut Inference,
        mut request: Request,
        stops: &[String],
    ) -> Result<RequestId, ModelError> {
        request.eos_token_ids.extend(special_stops(self.tokenizer, stops));
        let id = inference.submit(request)?;
        self.open.insert(id, TextStream::new(self.tokenizer, stops));
        Ok(id)
    }

    /// The same, of an answer that is read as part of the prompt's text: with the space between them.
    ///
    /// # Errors
    /// As [`Inference::submit`].
    pub fn submit_continuation(
        &mut self,
        inference: &mut Inference,
        request: Request,
        stops: &[String],
    ) -> Result<RequestId, ModelError> {
        let stream = TextStream::after(self.tokenizer, stops, &request.tokens);
        let id = self.submit(inference, request, stops)?;
        self.open.insert(id, stream);
        Ok(id)
    }

    /// As [`Inference::step`], for requests that were submitted here.
    ///
    /// # Errors
    /// As [`Inference::step`], and tokens that the tokenizer cannot decode.
    pub fn step(
        &mut self,
        inference: &mut Inference,
        decoder: &mut Decoder,
        backend: &dyn Backend,
        news: &mut Vec<News>,
    ) -> Result<usize, ModelError> {
        let mut events = Vec::new();
        let computed = inference.step(decoder, backend, &mut events)?;
        for event in events {
            let Some(stream) = self.open.get_mut(&event.id) else { continue };
            let mut text = match event.token {
                Some(token) => stream.push(token)?.to_owned(),
                None => String::new(),
            };
            let mut finish = event.finish;
            if stream.is_stopped() {
                inference.cancel(event.id);
                finish = Some(Finish::StopString);
            } else if finish.is_some() {
                text.push_str(stream.finish()?);
                if stream.is_stopped() {
                    finish = Some(Finish::StopString);
                }
            }
            if finish.is_some() {
                self.open.remove(&event.id);
            }
            news.push(News { id: event.id, token: event.token, scores: event.scores, text, finish });
        }
        Ok(computed)
    }

    /// As [`Inference::cancel`]; what was held back is lost.
    pub fn cancel(&mut self, inference: &mut Inference, id: RequestId) -> bool {
        self.open.remove(&id);
        inference.cancel(id)
    }
}
