//! What OpenAI's clients hear: completions and chat completions, whole or in chunks.

use super::asked::Asked;
use super::token_text::TokenTexts;
use foundry_models::inference::{Finish, News, TokenScore};
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// One choice as far as it has come.
#[derive(Default)]
pub(super) struct Choice {
    text: String,
    scores: Vec<TokenScore>,
    tokens: usize,
    finish: Option<&'static str>,
}

/// An answer in the making.
pub(super) struct Reply<'a> {
    asked: &'a Asked,
    texts: &'a TokenTexts<'a>,
    id: String,
    created: u64,
    /// Tokens of each choice's prompt.
    prompts: Vec<Vec<u32>>,
    choices: Vec<Choice>,
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::EndOfSequence | Finish::StopString | Finish::Stopped => "stop",
    }
}

/// The scores that a client hears. Completions tell of the end of the text too: lm_eval's `local-completions` counts on
/// a token after the prompt. In a chat it is no part of the answer.
fn told<'n>(asked: &Asked, news: &'n News) -> &'n [TokenScore] {
    if asked.is_chat && news.token.is_none() { &[] } else { &news.scores }
}

impl<'a> Reply<'a> {
    /// `prompts`: of each choice. `number`: of the request.
    pub(super) fn new(
        asked: &'a Asked,
        texts: &'a TokenTexts<'a>,
        prompts: Vec<Vec<u32>>,
        number: u64,
    ) -> Self {
        let created = now();
        let kind = if asked.is_chat { "chatcmpl" } else { "cmpl" };
        let choices = prompts.iter().map(|_| Choice::default()).collect();
        Self { asked, texts, id: format!("{kind}-{created:x}-{number}"), created, prompts, choices }
    }

    /// Takes news of a choice; `true`: every choice is whole now.
    pub(super) fn take(&mut self, index: usize, news: &News) -> bool {
        let choice = &mut self.choices[index];
        choice.tokens += usize::from(news.token.is_some());
        choice.finish = news.finish.map(reason);
        if !self.asked.common.is_stream {
            choice.text.push_str(&news.text);
            choice.scores.extend(told(self.asked, news).iter().cloned());
        }
        self.choices.iter().all(|choice| choice.finish.is_some())
    }

    fn envelope(&self, is_chunk: bool) -> Map<String, Value> {
        let object = match (self.asked.is_chat, is_chunk) {
            (false, _) => "text_completion",
            (true, false) => "chat.completion",
            (true, true) => "chat.completion.chunk",
        };
        let mut map = Map::new();
        map.insert("id".into(), self.id.as_str().into());
        map.insert("object".into(), object.into());
        map.insert("created".into(), self.created.into());
        map.insert("model".into(), self.asked.common.model.as_str().into());
        map
    }

    fn usage(&self) -> Value {
        // Choices of one prompt share it.
        let prompts: usize = self.prompts.iter().step_by(self.asked.common.n).map(Vec::len).sum();
        let answers: usize = self.choices.iter().map(|choice| choice.tokens).sum();
        json!({"prompt_tokens": prompts, "completion_tokens": answers, "total_tokens": prompts + answers})
    }

    /// The whole answer.
    pub(super) fn whole(&self) -> String {
        let choice = |(index, choice): (usize, &Choice)| {
            let mut map = Map::new();
            map.insert("index".into(), index.into());
            if self.asked.is_chat {
                let message = json!({"role": "assistant", "content": choice.text, "refusal": null});
                map.insert("message".into(), message);
            } else {
                let echoed =
                    if self.asked.echo { self.texts.all(&self.prompts[index]) } else { String::new() };
                map.insert("text".into(), (echoed + &choice.text).into());
            }
            map.insert("logprobs".into(), self.log_probs(Some(index), &choice.scores));
            map.insert("finish_reason".into(), choice.finish.into());
            Value::Object(map)
        };
        let mut map = self.envelope(false);
        map.insert("choices".into(), self.choices.iter().enumerate().map(choice).collect());
        map.insert("usage".into(), self.usage());
        Value::Object(map).to_string()
    }

    fn chunk(&self, choices: Value) -> String {
        let mut map = self.envelope(true);
        map.insert("choices".into(), choices);
        if self.asked.common.wants_usage {
            map.insert("usage".into(), Value::Null);
        }
        Value::Object(map).to_string()
    }

    /// The first chunk of each choice of a chat, which says who speaks.
    pub(super) fn openings(&self) -> Vec<String> {
        let opening = |index: usize| {
            let delta = json!({"role": "assistant", "content": ""});
            self.chunk(json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": null}]))
        };
        (0..self.choices.len()).filter(|_| self.asked.is_chat).map(opening).collect()
    }

    /// The chunk that tells news; `None`: there is nothing to tell yet.
    pub(super) fn news(&self, index: usize, news: &News) -> Option<String> {
        let scores = told(self.asked, news);
        if news.text.is_empty() && news.finish.is_none() && scores.is_empty() {
            return None;
        }
        let finish = news.finish.map(reason);
        let log_probs = self.log_probs(None, scores);
        let choice = match self.asked.is_chat {
            true => {
                let delta = if news.text.is_empty() { json!({}) } else { json!({"content": news.text}) };
                json!({"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish})
            }
            false => {
                json!({"index": index, "text": news.text, "logprobs": log_probs, "finish_reason": finish})
            }
        };
        Some(self.chunk(json!([choice])))
    }

    /// The last chunk, if the numbers of tokens are wanted.
    pub(super) fn closing(&self) -> Option<String> {
        self.asked.common.wants_usage.then(|| {
            let mut map = self.envelope(true);
            map.insert("choices".into(), json!([]));
            map.insert("usage".into(), self.usage());
            Value::Object(map).to_string()
        })
    }

    /// `choice`: with its prompt, if that is echoed.
    fn log_probs(&self, choice: Option<usize>, scores: &[TokenScore]) -> Value {
        if self.asked.log_probs.is_none() {
            return Value::Null;
        }
        if self.asked.is_chat {
            let entry = |token: u32, log_prob: f32| {
                let text = self.texts.one(token);
                // Part of a character has no text whose bytes could be told.
                let bytes = self.texts.is_text(token).then(|| text.as_bytes().to_vec());
                json!({"token": text, "logprob": log_prob, "bytes": bytes})
            };
            let told = |score: &TokenScore| {
                let mut told = entry(score.token, score.log_prob);
                told["top_logprobs"] = score.top.iter().map(|(token, p)| entry(*token, *p)).collect();
                told
            };
            return json!({"content": scores.iter().map(told).collect::<Vec<_>>(), "refusal": null});
        }
        let first = choice.filter(|_| self.asked.echo).and_then(|index| self.prompts[index].first());
        self.columns(first.copied(), scores)
    }

    /// Completions have columns. `first`: the prompt's first token, which nothing predicts.
    fn columns(&self, first: Option<u32>, scores: &[TokenScore]) -> Value {
        let (mut tokens, mut log_probs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        let mut offset = 0;
        let mut row = |token: u32, log_prob: Value, top: Value| {
            let text = self.texts.one(token);
            offsets.push(offset);
            // What is not part of the text takes no place in it.
            offset += if self.texts.is_shown(token) { text.chars().count() } else { 0 };
            tokens.push(text);
            log_probs.push(log_prob);
            tops.push(top);
        };
        first.into_iter().for_each(|token| row(token, Value::Null, Value::Null));
        for score in scores {
            let mut top = Map::new();
            for (token, log_prob) in &score.top {
                // Two tokens of one text: the likelier one counts.
                top.entry(self.texts.one(*token)).or_insert_with(|| json!(log_prob));
            }
            // The token itself is always among them.
            top.entry(self.texts.one(score.token)).or_insert_with(|| json!(score.log_prob));
            row(score.token, json!(score.log_prob), Value::Object(top));
        }
        json!({"tokens": tokens, "token_logprobs": log_probs, "top_logprobs": tops, "text_offset": offsets})
    }
}
