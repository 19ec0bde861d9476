//! `llm-foundry eval`: benchmarks with lm_eval's tasks and numbers.

mod files;
mod model;
mod progress;
mod table;
mod task_data;

use crate::cli::{EvalArgs, MachineArgs};
use crate::console::{duration, say};
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use foundry_eval::{
    EvalError, Library, Limit, PromptStyle, Results, RunOptions, Selection, TaskResult, Turn, check_task,
    evaluate_task,
};
use model::Examinee;
use progress::Progress;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
pub(crate) use task_data::TaskData;

/// Evaluates and prints.
pub(crate) fn run(args: &EvalArgs, machine: &MachineArgs) -> Outcome {
    let mut library = library(args)?;
    if args.list_tasks {
        return list(&library, machine.quiet);
    }
    let selection = library.select(&args.tasks).map_err(input)?;
    let mut data = TaskData::new("--data-dir", &args.data_dir, &selection, machine.quiet)?;
    let earlier = match args.compare.as_deref() {
        None | Some("base") => None,
        Some(path) => Some(files::Earlier::read(&expand_home(path))?),
    };
    if args.compare.as_deref() == Some("base") && args.adapter.is_empty() {
        return Err(Failure::Input(
            "--compare base compares an adapter with its base model\n  give the adapter with --adapter DIR, or compare \
             with the file of an earlier evaluation: --compare results_….json"
                .into(),
        ));
    }
    // Before hours are spent: the data and the first question of every task.
    for spec in &selection.tasks {
        check_task(spec, None, &mut data, &options(args, PromptStyle::default())).map_err(input)?;
    }
    let (mut base, mut written) = (None, Ok(()));
    if args.compare.as_deref() == Some("base") {
        say(machine.quiet, "the base model:");
        let evaluation = evaluation(args, machine, &selection, &mut data, true)?;
        // Before the other can fail.
        written = write(args, machine, &evaluation);
        if evaluation.failure.is_some() {
            return told(args, evaluation, None, written);
        }
        say(machine.quiet, "with the adapter:");
        base = Some(evaluation);
    }
    let tuned = match (evaluation(args, machine, &selection, &mut data, false), base.take()) {
        (Ok(tuned), own) => {
            base = own;
            tuned
        }
        (Err(failure), None) => return Err(failure),
        (Err(failure), Some(base)) => {
            return told(args, Evaluation { failure: Some(failure), ..base }, None, written);
        }
    };
    let before = base.as_ref().map(|base| files::Earlier::of(&base.top)).or(earlier);
    let written = written.and(write(args, machine, &tuned));
    told(args, tuned, before.as_ref(), written)
}

/// Writes what was found, where that is asked for.
fn write(args: &EvalArgs, machine: &MachineArgs, evaluation: &Evaluation) -> Outcome {
    let Some(output) = &args.output else { return Ok(()) };
    files::write(&expand_home(output), evaluation, machine.quiet)
}

/// Prints what was found, and then says what went wrong, here or as it was written.
fn told(
    args: &EvalArgs,
    evaluation: Evaluation,
    before: Option<&files::Earlier>,
    written: Outcome,
) -> Outcome {
    let shown = show(args, &evaluation, before);
    evaluation.failure.map_or(Ok(()), Err).and(written).and(shown)
}

fn show(args: &EvalArgs, evaluation: &Evaluation, before: Option<&files::Earlier>) -> Outcome {
    let mut out = std::io::stdout();
    if args.json {
        let mut top = evaluation.top.clone();
        if let Some(before) = before {
            top.insert("comparison".into(), table::comparison_json(&evaluation.results, before));
        }
        writeln!(out, "{}", Value::Object(top))?;
    } else {
        write!(out, "{}", table::text(&evaluation.results, before))?;
    }
    Ok(())
}

/// What one model reached.
pub(super) struct Evaluation {
    pub(super) results: Results,
    /// The top level of the results file.
    pub(super) top: Map<String, Value>,
    /// Directory of the files.
    pub(super) name: String,
    /// Why there are not all results.
    pub(super) failure: Option<Failure>,
}

pub(crate) fn input(error: EvalError) -> Failure {
    match &error {
        EvalError::Model(_)
        | EvalError::AnswerCount { .. }
        | EvalError::NotANumber { .. }
        | EvalError::NotFinite { .. } => Failure::run(error),
        _ => Failure::input(error),
    }
}

fn library(args: &EvalArgs) -> Outcome<Library> {
    let mut library = Library::builtin().map_err(input)?;
    for path in &args.include_path {
        library.add_path(&expand_home(&path.to_string_lossy())).map_err(input)?;
    }
    Ok(library)
}

fn list(library: &Library, quiet: bool) -> Outcome {
    for problem in library.unreadable() {
        say(quiet, format!("not listed: {problem}"));
    }
    let mut out = std::io::stdout();
    for (name, kind) in library.names() {
        writeln!(out, "{kind:5} {name}")?;
    }
    Ok(())
}

fn evaluation(
    args: &EvalArgs,
    machine: &MachineArgs,
    selection: &Selection,
    data: &mut TaskData,
    is_base: bool,
) -> Outcome<Evaluation> {
    let began = (Instant::now(), SystemTime::now());
    let mut examinee = Examinee::load(args, machine, is_base)?;
    let template = match args.apply_chat_template {
        true => Some(examinee.template(args)?),
        false => None,
    };
    let source = template.as_ref().map(|(source, _)| source.clone());
    let render = |turns: &[Turn], asks: bool| match &template {
        Some((_, template)) => rendered(template, turns, asks),
        None => Err("no chat template".into()),
    };
    let options = options(
        args,
        PromptStyle {
            chat_template: template.is_some().then_some(&render),
            fewshot_as_multiturn: args.fewshot_as_multiturn.unwrap_or(args.apply_chat_template),
            system_instruction: args.system_instruction.clone(),
        },
    );
    let conventions = examinee.conventions()?;
    for spec in &selection.tasks {
        check_task(spec, Some(&conventions), data, &options).map_err(input)?;
    }
    let (tasks, failure) = run_tasks(&mut examinee, selection, data, &options, machine.quiet)?;
    let results = Results::new(tasks, selection.groups.clone());
    let mut top = results.json();
    let seconds = began.0.elapsed().as_secs_f64();
    say(machine.quiet, format!("{} tasks in {}", results.tasks().len(), duration(seconds)));
    let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let run = json!({
        "limit": args.limit.map(limit_json),
        "bootstrap_iters": args.bootstrap_iters,
        "gen_kwargs": args.gen_kwargs.as_ref().map(|kwargs| &kwargs.0),
        "random_seed": args.seed.random,
        "numpy_seed": args.seed.numpy,
        "torch_seed": args.seed.torch,
        "fewshot_seed": args.seed.fewshot,
        "system_instruction": args.system_instruction,
        "fewshot_as_multiturn": args.fewshot_as_multiturn.or(args.apply_chat_template.then_some(true)),
        "chat_template": source,
        "date": unix(began.1),
        "seconds": seconds,
    });
    files::describe(&mut top, &examinee, &conventions, &run);
    Ok(Evaluation { results, top, name: examinee.name.clone(), failure })
}

/// How tasks are run.
fn options<'a>(args: &EvalArgs, style: PromptStyle<'a>) -> RunOptions<'a> {
    RunOptions {
        num_fewshot: args.num_fewshot,
        limit: args.limit,
        style,
        fewshot_seed: args.seed.fewshot,
        seed: args.seed.random,
        gen_kwargs: args.gen_kwargs.clone().unwrap_or_default().0,
        bootstrap_iterations: args.bootstrap_iters,
        log_samples: args.log_samples,
    }
}

/// Every task once, up to one that fails; an error where that is the first.
fn run_tasks(
    examinee: &mut Examinee,
    selection: &Selection,
    data: &mut TaskData,
    options: &RunOptions<'_>,
    quiet: bool,
) -> Outcome<(Vec<TaskResult>, Option<Failure>)> {
    let conventions = examinee.conventions()?;
    let mut tasks = Vec::new();
    for (at, spec) in selection.tasks.iter().enumerate() {
        let title = format!("{}/{} {}", at + 1, selection.tasks.len(), spec.name);
        let mut progress = Progress::new(title, quiet);
        let mut told = |done: usize, total: usize| progress.report(done, total);
        let mut model = examinee.language_model();
        model.progress = Some(&mut told);
        let result = match evaluate_task(spec, &mut model, &conventions, data, options) {
            Ok(result) => result,
            Err(error) if tasks.is_empty() => return Err(input(error)),
            Err(error) => return Ok((tasks, Some(input(error)))),
        };
        progress.finish(result.samples);
        result.remarks(conventions.max_length).into_iter().for_each(|remark| say(quiet, remark));
        tasks.push(result);
    }
    Ok((tasks, None))
}

fn limit_json(limit: Limit) -> Value {
    match limit {
        Limit::Count(count) => json!(count as f64),
        Limit::Fraction(share) => json!(share),
    }
}

/// A conversation through a chat template. Where no answer is asked for, the text ends with the last message.
pub(crate) fn rendered(template: &ChatTemplate, turns: &[Turn], asks: bool) -> Result<String, String> {
    let message = |turn: &Turn| Message {
        role: turn.role.into(),
        content: json!(turn.content),
        rest: Map::new(),
        learn: None,
    };
    let messages: Vec<Message> = turns.iter().map(message).collect();
    let text = template.render(&messages, None, asks, &Map::new()).map_err(|error| error.to_string())?.text;
    let Some(last) = turns.last().filter(|_| !asks) else { return Ok(text) };
    let wanted = last.content.trim();
    let at = text.rfind(wanted).ok_or("the chat template does not show the beginning of the answer")?;
    let whole = last.content.trim_start();
    let end = if text[at..].starts_with(whole) { whole.len() } else { wanted.len() };
    Ok(text[..at + end].to_owned())
}
