//! `llm-foundry chat`: a conversation, on a terminal or from standard input (each line a turn).

use crate::answer::{Answerer, sampling};
use crate::cli::{ChatArgs, MachineArgs};
use crate::console;
use crate::failure::{Failure, Outcome};
use crate::signals::ChatInterrupt;
use foundry_data::Message;
use foundry_models::Sampling;
use foundry_models::inference::TextStream;
use std::io::{BufRead, IsTerminal, Write};
use std::ops::ControlFlow;

/// New tokens of an answer where neither flags nor model say how many.
const MAX_NEW_TOKENS: usize = 512;

/// Talks until the input ends.
pub(crate) fn run(args: &ChatArgs, machine: &MachineArgs) -> Outcome {
    let mut answerer = Answerer::load(&args.model, machine, 1)?;
    let sampling = sampling(&args.sampling, answerer.front.generation_config.as_ref(), MAX_NEW_TOKENS)?;
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        console::say(
            machine.quiet,
            "An empty line or Ctrl-D ends the chat, Ctrl-C an answer, /reset begins anew.",
        );
    }
    let interrupt = ChatInterrupt::install().map_err(Failure::run)?;
    let begin = || args.system.iter().map(|text| Message::text("system", text.clone())).collect::<Vec<_>>();
    let mut messages = begin();
    let mut input = std::io::stdin().lock();
    loop {
        if interactive {
            print!("> ");
            std::io::stdout().flush()?;
        }
        let mut line = String::new();
        let read = input.read_line(&mut line);
        let read = read.map_err(|e| Failure::Input(format!("standard input: {e}")))?;
        let text = line.trim();
        match (read, text) {
            (0, _) | (_, "/exit" | "/quit") => break,
            (_, "") if interactive => break,
            (_, "") => continue,
            (_, "/reset") => {
                messages = begin();
                continue;
            }
            _ => {}
        }
        messages.push(Message::text("user", text));
        match turn(&mut answerer, &messages, &sampling, &args.sampling.stop, &interrupt) {
            Ok(answer) => messages.push(Message::text("assistant", answer)),
            Err(Failure::Input(message)) if interactive => {
                Failure::Input(format!("{message}\n  (/reset begins a new conversation)")).report();
                messages.pop();
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// One answer, shown as it comes.
fn turn(
    answerer: &mut Answerer,
    messages: &[Message],
    sampling: &Sampling,
    stops: &[String],
    interrupt: &ChatInterrupt,
) -> Outcome<String> {
    let front = answerer.front.clone();
    let prompt = front.chat_ids(messages, None)?;
    if prompt.len() >= front.capacity {
        return Err(Failure::Input(format!(
            "the conversation has {} tokens and there is room for {}; start again, or give a larger --max-length",
            prompt.len(),
            front.capacity
        )));
    }
    let mut stream = TextStream::new(&front.tokenizer, stops);
    let mut out = std::io::stdout();
    let mut failure = None;
    let answering = interrupt.answering();
    answerer.answer(&prompt, sampling, stops, &mut |token| {
        let shown = stream
            .push(token)
            .map_err(Failure::input)
            .and_then(|text| Ok(write!(out, "{text}").and_then(|()| out.flush())?));
        if let Err(error) = shown {
            failure = Some(error);
            return ControlFlow::Break(());
        }
        let stop = stream.is_stopped() || answering.was_interrupted();
        if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    drop(answering);
    if let Some(failure) = failure {
        return Err(failure);
    }
    let rest = stream.finish().map_err(Failure::input)?.to_owned();
    writeln!(out, "{rest}")?;
    Ok(stream.text().to_owned())
}
