//! `llm-foundry generate --prompts FILE`: the lines of a file, answered together and printed in their order.

use super::{MAX_NEW_TOKENS, finish_reason, read_stdin};
use crate::answer::{Answerer, Front, Question, messages, sampling};
use crate::cli::{GenerateArgs, MachineArgs};
use crate::console::AnswerProgress;
use crate::failure::{Failure, Outcome};
use foundry_models::Sampling;
use foundry_models::inference::{Answers, News, Request};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// Keys that an answer adds to its line.
const ADDED: [&str; 4] = ["answer", "finish_reason", "prompt_tokens", "answer_tokens"];
/// Those that `--json` adds.
const ADDED_IDS: [&str; 2] = ["prompt_token_ids", "token_ids"];

/// One line of the file.
struct Line {
    /// Counted from 1.
    number: usize,
    /// As it was read.
    object: Map<String, Value>,
    question: Question,
}

/// An answer that is being given.
#[derive(Default)]
struct Answer {
    text: String,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    finish: Option<&'static str>,
}

/// Reads all lines, answers them, prints them.
pub(super) fn run(args: &GenerateArgs, path: &Path, machine: &MachineArgs) -> Outcome {
    let lines = lines(path)?;
    let running = args.batch_size.min(lines.len());
    let mut answerer = Answerer::load(&args.model, machine, running)?;
    let front = answerer.front.clone();
    let sampling = sampling(&args.sampling, front.generation_config.as_ref(), MAX_NEW_TOKENS)?;
    let requests = lines.iter().map(|line| request(&front, line, &sampling)).collect::<Outcome<Vec<_>>>()?;
    let mut out = std::io::stdout().lock();
    answer_all(&mut answerer, requests, args, machine.quiet, |index, answer| {
        writeln!(out, "{}", completed(&lines[index], answer, args.json)).and_then(|()| out.flush())
    })
}

/// The request of a line, with a seed of its own, so that equal prompts get different draws.
fn request(front: &Front, line: &Line, sampling: &Sampling) -> Outcome<Request> {
    let at = |message: String| Failure::Input(format!("line {} of --prompts: {message}", line.number));
    let tokens = front.question_ids(&line.question).map_err(|failure| match failure {
        Failure::Input(message) => at(message),
        other => other,
    })?;
    if tokens.len() > front.capacity {
        return Err(at(format!(
            "its prompt has {} tokens and there is room for {}; shorten it, or give a larger --max-length",
            tokens.len(),
            front.capacity
        )));
    }
    let seed = sampling.seed.wrapping_add(line.number as u64 - 1);
    Ok(front.request(tokens, Sampling { seed, ..sampling.clone() }))
}

/// Runs all requests; `print` receives the answers in their order.
fn answer_all(
    answerer: &mut Answerer,
    requests: Vec<Request>,
    args: &GenerateArgs,
    quiet: bool,
    mut print: impl FnMut(usize, &Answer) -> std::io::Result<()>,
) -> Outcome {
    let mut progress = AnswerProgress::new(quiet, requests.len());
    let (inference, decoder, backend, tokenizer) = answerer.parts();
    let (mut answers, mut indices) = (Answers::new(tokenizer), HashMap::new());
    let mut given: Vec<Answer> = Vec::with_capacity(requests.len());
    for request in requests {
        given.push(Answer { prompt: request.tokens.clone(), ..Answer::default() });
        let id = answers.submit(inference, request, &args.sampling.stop).map_err(Failure::input)?;
        indices.insert(id, given.len() - 1);
    }
    let (mut news, mut printed) = (Vec::new(), 0);
    while printed < given.len() {
        answers.step(inference, decoder, backend, &mut news).map_err(Failure::input)?;
        for News { id, token, text, finish, .. } in news.drain(..) {
            let answer = &mut given[indices[&id]];
            answer.text.push_str(&text);
            answer.tokens.extend(token);
            answer.finish = finish.map(finish_reason);
            progress.token(usize::from(token.is_some()), usize::from(finish.is_some()));
        }
        while given.get(printed).is_some_and(|answer| answer.finish.is_some()) {
            print(printed, &std::mem::take(&mut given[printed]))?;
            printed += 1;
        }
    }
    progress.finish();
    Ok(())
}

/// The line with its answer.
fn completed(line: &Line, answer: &Answer, with_ids: bool) -> Value {
    let mut object = line.object.clone();
    let values = [
        Value::from(answer.text.as_str()),
        Value::from(answer.finish),
        Value::from(answer.prompt.len()),
        Value::from(answer.tokens.len()),
    ];
    object.extend(ADDED.into_iter().map(str::to_owned).zip(values));
    if with_ids {
        let ids = [&answer.prompt, &answer.tokens].map(|ids| Value::from(ids.as_slice()));
        object.extend(ADDED_IDS.into_iter().map(str::to_owned).zip(ids));
    }
    Value::Object(object)
}

fn lines(path: &Path) -> Outcome<Vec<Line>> {
    let (name, text) = match path == Path::new("-") {
        true => ("standard input".to_owned(), read_stdin()?),
        false => {
            let text = std::fs::read_to_string(path).map_err(|e| Failure::io("read", path, &e))?;
            (path.display().to_string(), text)
        }
    };
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let lines = numbered
        .map(|(index, text)| {
            let number = index + 1;
            line(number, text).map_err(|what| Failure::Input(format!("{name}:{number}: {what}")))
        })
        .collect::<Outcome<Vec<_>>>()?;
    if lines.is_empty() {
        let expected = r#"expected lines such as {"prompt": "Once upon a time"}"#;
        return Err(Failure::Input(format!("{name}: no lines; {expected}")));
    }
    Ok(lines)
}

fn line(number: usize, text: &str) -> Result<Line, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|e| format!("broken JSON at column {}: {e}", e.column()))?;
    let Value::Object(object) = value else {
        return Err(r#"not an object; expected one such as {"prompt": "Once upon a time"}"#.into());
    };
    if let Some(key) = ADDED.iter().chain(&ADDED_IDS).find(|key| object.contains_key(**key)) {
        return Err(format!("`{key}` is where the answer goes; rename that column"));
    }
    let question = match (object.get("prompt"), object.get("messages")) {
        (Some(Value::String(prompt)), None) => Question::Prompt(prompt.clone()),
        (None, Some(list)) => Question::Chat(messages(list.clone())?, object.get("tools").cloned()),
        (Some(_), None) => return Err("`prompt` is not a text".into()),
        (Some(_), Some(_)) => return Err("both `prompt` and `messages`; leave one out".into()),
        (None, None) => return Err("neither `prompt` nor `messages`".into()),
    };
    Ok(Line { number, object, question })
}
