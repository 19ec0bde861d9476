//! What OpenAI's clients ask: the bodies of `/v1/completions` and `/v1/chat/completions`.

use super::fields::{ApiError, Fields};
use crate::answer::{Question, messages};
use crate::cli::SamplingArgs;
use serde_json::{Value, json};

/// Most texts of one request.
const MOST_PROMPTS: usize = 128;
/// Most choices for each.
const MOST_CHOICES: usize = 16;
/// Most stop strings.
const MOST_STOPS: usize = 16;
/// Most alternatives of a token whose probabilities are told.
const MOST_TOP: usize = 20;

/// What is continued.
#[derive(Debug)]
pub(super) enum Prompt {
    Question(Question),
    Tokens(Vec<u32>),
}

/// A request for texts.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) prompts: Vec<Prompt>,
    /// Log-probabilities of the tokens, with so many alternatives.
    pub(super) log_probs: Option<usize>,
    /// The prompt is part of the text.
    pub(super) echo: bool,
    pub(super) is_chat: bool,
    pub(super) common: Common,
}

/// What both kinds of requests have.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) model: String,
    /// Choices for each prompt.
    pub(super) n: usize,
    /// `seed` is 0 where none was asked for.
    pub(super) sampling: SamplingArgs,
    pub(super) has_seed: bool,
    pub(super) is_stream: bool,
    /// The stream ends with the numbers of tokens.
    pub(super) wants_usage: bool,
}

impl Asked {
    /// The body of `/v1/completions`.
    pub(super) fn completion(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let prompts = prompts(fields.take("prompt"))?;
        let log_probs = fields.count("logprobs", 0, MOST_TOP)?;
        let echo = fields.flag("echo")?;
        fields.only("best_of", &[json!(1)])?;
        fields.only("suffix", &[json!("")])?;
        let max_tokens = fields.count("max_tokens", 0, usize::MAX)?.unwrap_or(16);
        if max_tokens == 0 && !echo {
            return Err(ApiError::of("max_tokens", "0 tokens and no echo are an empty answer"));
        }
        let common = Common::read(&mut fields, Some(max_tokens))?;
        if common.is_stream && echo {
            return Err(ApiError::of("echo", "is not done in a stream; leave out one of the two"));
        }
        fields.finish()?;
        Ok(Self { prompts, log_probs, echo, is_chat: false, common })
    }

    /// The body of `/v1/chat/completions`.
    pub(super) fn chat(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let list = fields.take("messages").ok_or_else(|| ApiError::of("messages", "is missing"))?;
        let list = messages(list).map_err(|what| ApiError::of("messages", what))?;
        let prompts = vec![Prompt::Question(Question::Chat(list, fields.take("tools")))];
        let top = fields.count("top_logprobs", 0, MOST_TOP)?;
        let wants = fields.flag("logprobs")?;
        if top.is_some() && !wants {
            return Err(ApiError::of("top_logprobs", "needs `logprobs`: true"));
        }
        fields.only("response_format", &[json!({"type": "text"})])?;
        fields.only("tool_choice", &[json!("auto"), json!("none")])?;
        let newer = fields.count("max_completion_tokens", 1, usize::MAX)?;
        let older = fields.count("max_tokens", 1, usize::MAX)?;
        let common = Common::read(&mut fields, newer.or(older))?;
        fields.finish()?;
        let log_probs = wants.then(|| top.unwrap_or(0));
        Ok(Self { prompts, log_probs, echo: false, is_chat: true, common })
    }
}

impl Common {
    fn read(fields: &mut Fields, max_new_tokens: Option<usize>) -> Result<Self, ApiError> {
        for key in ["presence_penalty", "frequency_penalty"] {
            fields.only(key, &[json!(0), json!(0.0)])?;
        }
        fields.only("logit_bias", &[json!({})])?;
        // Who asks changes nothing.
        let _ = (fields.take("user"), fields.take("metadata"), fields.take("store"));
        let is_stream = fields.flag("stream")?;
        let wants_usage = match fields.take("stream_options") {
            None => false,
            Some(Value::Object(options)) if is_stream && options.keys().all(|key| key == "include_usage") => {
                options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)
            }
            Some(_) => {
                let expected = r#"expected {"include_usage": true} in a stream"#;
                return Err(ApiError::of("stream_options", expected));
            }
        };
        let seed = fields.integer("seed")?;
        let sampling = SamplingArgs {
            max_new_tokens,
            temperature: fields.number("temperature")?,
            top_k: fields.count("top_k", 0, usize::MAX)?,
            top_p: fields.number("top_p")?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            stop: fields.texts("stop", MOST_STOPS)?,
            seed: seed.unwrap_or(0) as u64,
            greedy: false,
            do_sample: false,
        };
        let model = fields.text("model")?.ok_or_else(|| ApiError::of("model", "is missing"))?;
        let n = fields.count("n", 1, MOST_CHOICES)?.unwrap_or(1);
        Ok(Self { model, n, sampling, has_seed: seed.is_some(), is_stream, wants_usage })
    }
}

/// A text, texts, tokens, or lists of tokens.
fn prompts(value: Option<Value>) -> Result<Vec<Prompt>, ApiError> {
    let wrong =
        || ApiError::of("prompt", "expected a text, a list of texts, token ids, or lists of token ids");
    let tokens = |list: &[Value]| -> Result<Vec<u32>, ApiError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
        list.iter().map(id).collect()
    };
    let text = |text: &str| Prompt::Question(Question::Prompt(text.to_owned()));
    let prompts = match value {
        None => return Err(ApiError::of("prompt", "is missing")),
        Some(Value::String(one)) => vec![text(&one)],
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_number) => {
            vec![Prompt::Tokens(tokens(&list)?)]
        }
        Some(Value::Array(list)) => {
            let read = |value: &Value| match value {
                Value::String(one) => Ok(text(one)),
                Value::Array(list) => Ok(Prompt::Tokens(tokens(list)?)),
                _ => Err(wrong()),
            };
            list.iter().map(read).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(wrong()),
    };
    match prompts.len() {
        1..=MOST_PROMPTS => Ok(prompts),
        count => Err(ApiError::of("prompt", format!("{count} prompts; 1 to {MOST_PROMPTS} are taken"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(value: Value) -> Result<Asked, ApiError> {
        Asked::completion(value.to_string().as_bytes())
    }

    #[test]
    fn prompts_have_four_forms() {
        for (prompt, count) in
            [(json!("a"), 1), (json!(["a", "b"]), 2), (json!([1, 2, 3]), 1), (json!([[1, 2], [3]]), 2)]
        {
            let asked = completion(json!({"model": "m", "prompt": prompt})).unwrap();
            assert_eq!((asked.prompts.len(), asked.common.sampling.max_new_tokens), (count, Some(16)));
        }
        for prompt in [json!(null), json!([]), json!({}), json!([1, "a"]), json!([-1]), json!([[1.5]])] {
            let error = completion(json!({"model": "m", "prompt": prompt})).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some("prompt")));
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (key, value) in [
            ("best_of", json!(3)),
            ("presence_penalty", json!(0.5)),
            ("logit_bias", json!({"5": 1})),
            ("max_tokens", json!(0)),
            ("n", json!(0)),
            ("stream_options", json!({"include_usage": true})),
            ("logprobs", json!(21)),
            ("colour", json!("red")),
        ] {
            let error = completion(json!({"model": "m", "prompt": "a", key: value})).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(key), "{error:?}");
        }
        let chat = |value: Value| Asked::chat(value.to_string().as_bytes());
        let ask = |key: &str, value: Value| {
            chat(json!({"model": "m", "messages": [{"role": "user", "content": "x"}], key: value}))
        };
        assert!(ask("top_logprobs", json!(2)).is_err(), "without logprobs");
        assert!(ask("response_format", json!({"type": "json_object"})).is_err());
        assert!(chat(json!({"model": "m", "messages": []})).is_err());
        let asked = ask("max_completion_tokens", json!(7)).unwrap();
        assert_eq!((asked.common.sampling.max_new_tokens, asked.is_chat), (Some(7), true));
    }
}
