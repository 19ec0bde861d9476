//! Benchmarks and sample answers during a run (section `eval`): task numbers go to all callbacks, answers into
//! `samples.jsonl`, one line `{"step", "prompt", "text"}` for each prompt.

use crate::commands::eval::{TaskData, rendered};
use crate::config::{Config, EvalSection};
use crate::failure::{Failure, Outcome};
use crate::model_source::expand_home;
use crate::subject::Subject;
use foundry_data::chat::ChatTemplate;
use foundry_engine::callbacks::{Callback, Examination};
use foundry_engine::{DecoderLanguageModel, EngineError, StartReport, TaskReport};
use foundry_eval::{
    Drawing, GenerateRequest, LanguageModel, Library, Limit, PromptStyle, Results, RunOptions, Selection,
    Turn, evaluate_task,
};
use foundry_formats::Tokenizer;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Name of the file of answers.
pub(super) const SAMPLES: &str = "samples.jsonl";

/// Examines the model after some steps.
pub(super) struct Examiner {
    section: EvalSection,
    selection: Selection,
    data: TaskData,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    eos_token_ids: Vec<u32>,
    samples: PathBuf,
    seed: u64,
}

impl Examiner {
    /// Reads the tasks, so that a mistake in them is found before the first step. `None`: nothing is asked for.
    pub(super) fn new(config: &Config, subject: &Subject, output_dir: &Path) -> Outcome<Option<Self>> {
        let section = config.eval.clone();
        if section.tasks.is_empty() && section.prompts.is_empty() {
            return Ok(None);
        }
        let wrong = |error: foundry_eval::EvalError| Failure::Input(format!("eval.tasks: {error}"));
        let mut library = Library::builtin().map_err(wrong)?;
        for path in &section.include_path {
            library.add_path(&expand_home(path)).map_err(wrong)?;
        }
        let selection = library.select(&section.tasks).map_err(wrong)?;
        let data = TaskData::new(&section.data_dir, true)?;
        let tokenizer =
            subject.tokenizer.clone().ok_or_else(|| Failure::Input("eval: no tokenizer".into()))?;
        let template = match tokenizer.chat_template() {
            Some(source) => {
                let compiled = ChatTemplate::compile(source, tokenizer.special_tokens());
                Some(compiled.map_err(|error| Failure::Input(format!("eval: {error}")))?)
            }
            None if section.apply_chat_template => {
                let message = "eval.apply_chat_template: this tokenizer has no chat template; set \
                               tokenizer.chat_template, or leave the key away";
                return Err(Failure::Input(message.into()));
            }
            None => None,
        };
        let mut eos_token_ids = subject.eos_token_ids();
        eos_token_ids.extend(tokenizer.eos_token_id().filter(|id| !eos_token_ids.contains(id)));
        let samples = output_dir.join(SAMPLES);
        let seed = config.training.seed;
        Ok(Some(Self { section, selection, data, tokenizer, template, eos_token_ids, samples, seed }))
    }

    fn tasks(&mut self, examination: &mut Examination<'_>) -> Result<Vec<TaskReport>, EngineError> {
        let Self { section, selection, data, tokenizer, template, eos_token_ids, seed, .. } = self;
        let Some(decoder) = examination.model.decoder_mut() else { return Ok(Vec::new()) };
        let eos_token_ids = eos_token_ids.clone();
        let mut model =
            DecoderLanguageModel { decoder, backend: examination.backend, tokenizer, eos_token_ids };
        let conventions =
            model.conventions().ok_or_else(|| failed("the tokenizer has neither BOS nor EOS"))?;
        let render = |turns: &[Turn], asks: bool| match &*template {
            Some(template) => rendered(template, turns, asks),
            None => Err("no chat template".into()),
        };
        let limit = section.limit.map(|limit| match limit {
            share if share < 1.0 => Limit::Fraction(share),
            count => Limit::Count(count as usize),
        });
        let options = RunOptions {
            num_fewshot: section.num_fewshot,
            limit,
            style: PromptStyle {
                chat_template: section.apply_chat_template.then_some(&render),
                fewshot_as_multiturn: section.apply_chat_template,
                system_instruction: None,
            },
            seed: *seed,
            bootstrap_iterations: 1000,
            ..RunOptions::default()
        };
        let mut results = Vec::new();
        for spec in &selection.tasks {
            results.push(evaluate_task(spec, &mut model, &conventions, data, &options).map_err(failed)?);
        }
        let step = examination.step;
        let report = |row: foundry_eval::Row| {
            let metric = row.metric?;
            let name = match metric.filter.as_str() {
                "none" => metric.name,
                filter => format!("{},{filter}", metric.name),
            };
            Some(TaskReport {
                step,
                task: row.name,
                metric: name,
                value: metric.value,
                stderr: metric.stderr,
            })
        };
        Ok(Results::new(results, selection.groups.clone()).rows().into_iter().filter_map(report).collect())
    }

    /// Answers the fixed prompts, greedily.
    fn answers(&mut self, examination: &mut Examination<'_>) -> Result<(), EngineError> {
        let Self { section, tokenizer, template, eos_token_ids, samples, .. } = self;
        let Some(decoder) = examination.model.decoder_mut() else { return Ok(()) };
        let eos_token_ids = eos_token_ids.clone();
        let mut model =
            DecoderLanguageModel { decoder, backend: examination.backend, tokenizer, eos_token_ids };
        let mut requests = Vec::new();
        for prompt in &section.prompts {
            let text = match &*template {
                Some(template) => rendered(template, &[Turn::user(prompt)], true)
                    .map_err(|problem| failed(problem.as_str()))?,
                None => prompt.clone(),
            };
            let tokens = model.encode(&text, template.is_none()).map_err(failed)?;
            let (until, max_new_tokens) = (Vec::new(), section.max_new_tokens);
            requests.push(GenerateRequest { tokens, until, max_new_tokens, drawing: Drawing::GREEDY });
        }
        let texts = model.generate_until(&requests).map_err(failed)?;
        let lines: String = section
            .prompts
            .iter()
            .zip(texts)
            .map(|(prompt, text)| {
                format!("{}\n", json!({"step": examination.step, "prompt": prompt, "text": text}))
            })
            .collect();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&*samples);
        file.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(failed)
    }
}

fn failed(error: impl Into<foundry_engine::BoxedError>) -> EngineError {
    EngineError::Callback { name: "eval", source: error.into() }
}

impl Callback for Examiner {
    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        let Ok(text) = std::fs::read_to_string(&self.samples) else { return Ok(()) };
        // What came after the step that the run goes on from is written anew.
        let is_kept = |line: &&str| {
            let step = serde_json::from_str::<Value>(line).ok().and_then(|line| line.get("step")?.as_u64());
            step.is_some_and(|step| report.resumed_from.is_some() && step <= report.step)
        };
        let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.samples, kept).map_err(failed)
    }

    fn examine(&mut self, examination: &mut Examination<'_>) -> Result<Vec<TaskReport>, EngineError> {
        let is_due = self.section.steps.is_some_and(|steps| examination.step.is_multiple_of(steps));
        if !is_due && !examination.is_last {
            return Ok(Vec::new());
        }
        if !self.section.prompts.is_empty() {
            self.answers(examination)?;
        }
        if self.selection.tasks.is_empty() {
            return Ok(Vec::new());
        }
        self.tasks(examination)
    }
}
