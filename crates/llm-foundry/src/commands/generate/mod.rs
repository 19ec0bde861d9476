//! `llm-foundry generate`: one answer, or one for each line of a file.

mod batch;

use crate::answer::{Answerer, Question, messages, sampling};
use crate::cli::{GenerateArgs, MachineArgs};
use crate::failure::{Failure, Outcome};
use foundry_models::inference::{Finish, TextStream};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// New tokens where neither flags nor model say how many.
const MAX_NEW_TOKENS: usize = 256;

/// Answers and prints.
pub(crate) fn run(args: &GenerateArgs, machine: &MachineArgs) -> Outcome {
    // Input first: it is cheap to read and may be wrong.
    if let Some(path) = &args.prompts {
        return batch::run(args, path, machine);
    }
    let question = question(args)?;
    let mut answerer = Answerer::load(&args.model, machine, 1)?;
    let front = answerer.front.clone();
    let sampling = sampling(&args.sampling, front.generation_config.as_ref(), MAX_NEW_TOKENS)?;
    let prompt = front.question_ids(&question)?;
    let mut stream = TextStream::new(&front.tokenizer, &args.sampling.stop);
    let mut failure = None;
    let mut out = std::io::stdout();
    let began = Instant::now();
    let mut first_token = None;
    let generation = answerer.answer(&prompt, &sampling, &args.sampling.stop, &mut |token| {
        first_token.get_or_insert_with(|| began.elapsed());
        match show(&mut stream, token, args.json, &mut out) {
            Ok(flow) => flow,
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let seconds = began.elapsed().as_secs_f64();
    let rest = stream.finish().map_err(Failure::input)?.to_owned();
    if !args.json {
        writeln!(out, "{rest}")?;
        return Ok(());
    }
    let finish = if stream.is_stopped() { Finish::StopString } else { generation.finish };
    let result = json!({
        "text": stream.text(),
        "token_ids": generation.tokens,
        "prompt_token_ids": prompt,
        "finish_reason": finish_reason(finish),
        "seconds_to_first_token": first_token.map(|t| t.as_secs_f64()),
        "seconds": seconds,
        "sampling": sampling,
    });
    writeln!(out, "{result}")?;
    Ok(())
}

/// Why an answer ended, as the JSON results call it.
fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::StopString => "stop_string",
        Finish::EndOfSequence => "end_of_sequence",
        Finish::Length => "length",
        Finish::Stopped => "stopped",
    }
}

fn show(
    stream: &mut TextStream<'_>,
    token: u32,
    json: bool,
    out: &mut impl Write,
) -> Outcome<ControlFlow<()>> {
    let text = stream.push(token).map_err(Failure::input)?;
    if !json {
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(if stream.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
}

fn question(args: &GenerateArgs) -> Outcome<Question> {
    match (&args.prompt, &args.messages) {
        (Some(text), _) if text == "-" => Ok(Question::Prompt(read_stdin()?)),
        (Some(text), _) => Ok(Question::Prompt(text.clone())),
        (None, Some(path)) => {
            let (name, text) = match path == Path::new("-") {
                true => ("standard input".to_owned(), read_stdin()?),
                false => {
                    let text = std::fs::read_to_string(path).map_err(|e| Failure::io("read", path, &e))?;
                    (path.display().to_string(), text)
                }
            };
            chat(&name, &text)
        }
        (None, None) => unreachable!("clap asks for one of them, and prompts are read elsewhere"),
    }
}

fn read_stdin() -> Outcome<String> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| Failure::Input(format!("standard input: {e}")))?;
    Ok(text)
}

/// A list of messages, or an object with `messages` and perhaps `tools`.
fn chat(name: &str, text: &str) -> Outcome<Question> {
    let wrong = |what: String| {
        Failure::Input(format!(
            "{name}: {what}; expected a list such as [{{\"role\": \"user\", \"content\": \"Hello\"}}]"
        ))
    };
    let value: Value = serde_json::from_str(text)
        .map_err(|e| wrong(format!("broken JSON at line {}, column {}: {e}", e.line(), e.column())))?;
    let (list, tools) = match value {
        Value::Object(mut object) => {
            (object.remove("messages").unwrap_or(Value::Null), object.remove("tools"))
        }
        list => (list, None),
    };
    Ok(Question::Chat(messages(list).map_err(wrong)?, tools))
}
