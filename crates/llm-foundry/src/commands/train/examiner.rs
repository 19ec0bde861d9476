//! Benchmarks and sample answers during a run (section `eval`): task numbers go to all callbacks, answers into
//! `samples.jsonl`, one line `{"step", "prompt", "text"}` for each prompt.

use crate::answer::sampling_of_model;
use crate::benchmarks;
use crate::commands::eval::{TaskData, rendered};
use crate::config::{Config, EvalSection};
use crate::console::say;
use crate::failure::{Failure, Outcome};
use crate::machine::available_memory;
use crate::subject::Subject;
use foundry_data::chat::ChatTemplate;
use foundry_engine::callbacks::{Callback, Examination, Findings};
use foundry_engine::{DecoderLanguageModel, EngineError, StartReport, TaskReport, conventions};
use foundry_eval::{
    Drawing, GenerateRequest, LanguageModel, Limit, PromptStyle, Results, RunOptions, Selection, Turn,
    check_task, evaluate_task,
};
use foundry_formats::Tokenizer;
use foundry_models::Sampling;
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
    /// The model's own settings of generation.
    sampling: Sampling,
    samples: PathBuf,
    seed: u64,
    checks_memory: bool,
    quiet: bool,
}

impl Examiner {
    /// Reads the tasks and their data and puts the first question of each and all prompts together, so that mistakes in
    /// them are found before the first step. `None`: nothing is asked for.
    pub(super) fn new(
        config: &Config,
        subject: &Subject,
        output_dir: &Path,
        quiet: bool,
    ) -> Outcome<Option<Self>> {
        let section = config.eval.clone();
        if section.tasks.is_empty() && section.prompts.is_empty() {
            return Ok(None);
        }
        let selection = benchmarks::selection(&section)?;
        let data = TaskData::new("eval.data_dir", &section.data_dir, &selection, true)?;
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
        let files = subject.files.as_ref();
        let sampling = sampling_of_model(files.and_then(|files| files.generation_config.as_ref()))?;
        let samples = output_dir.join(SAMPLES);
        let (seed, checks_memory) = (config.training.seed, config.training.check_memory);
        let mut examiner = Self {
            section,
            selection,
            data,
            tokenizer,
            template,
            eos_token_ids,
            sampling,
            samples,
            seed,
            checks_memory,
            quiet,
        };
        examiner.check(subject.decoder.max_position_embeddings)?;
        Ok(Some(examiner))
    }

    /// Tries what can be tried without the model.
    fn check(&mut self, max_length: usize) -> Outcome {
        for prompt in &self.section.prompts {
            let wrong = |problem: String| Failure::Input(format!("eval.prompts: {prompt:?}: {problem}"));
            let text = self.text_of(prompt).map_err(wrong)?;
            let tokens = self.tokenizer.encode(&text, self.template.is_none());
            let tokens = tokens.map_err(|error| wrong(error.to_string()))?.len();
            let longest = tokens.saturating_add(self.section.max_new_tokens);
            if tokens == 0 || longest > max_length {
                return Err(wrong(format!(
                    "{tokens} tokens and {} of the answer; there must be at least one, and together at most {max_length} \
                     (the model's max_position_embeddings); change the prompt or eval.max_new_tokens",
                    self.section.max_new_tokens
                )));
            }
        }
        if self.selection.tasks.is_empty() {
            return Ok(());
        }
        let conventions = conventions(&self.tokenizer, max_length).ok_or_else(|| {
            Failure::Input(
                "eval.tasks: the tokenizer has neither a BOS nor an EOS token, which a text without context begins \
                 with; set tokenizer.eos_token"
                    .into(),
            )
        })?;
        let Self { section, selection, data, template, seed, .. } = self;
        let render = |turns: &[Turn], asks: bool| render(template.as_ref(), turns, asks);
        let options = options(section, &render, *seed);
        for spec in &selection.tasks {
            let checked = check_task(spec, Some(&conventions), data, &options);
            checked.map_err(|error| Failure::Input(format!("eval.tasks: {error}")))?;
        }
        Ok(())
    }

    /// A prompt as the model is asked.
    fn text_of(&self, prompt: &str) -> Result<String, String> {
        match &self.template {
            Some(template) => rendered(template, &[Turn::user(prompt)], true),
            None => Ok(prompt.to_owned()),
        }
    }

    /// Numbers of all tasks; `None`: broken off. What goes wrong with one is said, and the run goes on without it.
    fn tasks(&mut self, examination: &mut Examination<'_>) -> Option<Vec<TaskReport>> {
        let Self { section, selection, data, tokenizer, template, eos_token_ids, seed, quiet, .. } = self;
        let Examination { step, model, backend, interrupts, .. } = examination;
        let Some(decoder) = model.decoder_mut() else { return Some(Vec::new()) };
        let max_length = decoder.config().max_position_embeddings;
        let Some(conventions) = conventions(tokenizer, max_length) else { return Some(Vec::new()) };
        let mut model = DecoderLanguageModel::new(decoder, *backend, tokenizer, eos_token_ids.clone());
        model.memory = if self.checks_memory { available_memory() } else { None };
        model.sampling = self.sampling.clone();
        let render = |turns: &[Turn], asks: bool| render(template.as_ref(), turns, asks);
        let options = options(section, &render, *seed);
        let mut results = Vec::new();
        for spec in &selection.tasks {
            if interrupts() {
                return None;
            }
            match evaluate_task(spec, &mut model, &conventions, data, &options) {
                Ok(result) => {
                    result.remarks(max_length).into_iter().for_each(|remark| say(*quiet, remark));
                    results.push(result);
                }
                Err(error) => {
                    say(
                        *quiet,
                        format!("warning: step {step}: {error}; the run goes on without this number"),
                    );
                }
            }
        }
        let rows = Results::new(results, selection.groups.clone()).rows();
        Some(rows.into_iter().filter_map(|row| benchmarks::report(*step, row)).collect())
    }

    /// Answers the fixed prompts, greedily.
    fn answers(&mut self, examination: &mut Examination<'_>) -> Result<(), EngineError> {
        let mut texts = Vec::new();
        for prompt in &self.section.prompts {
            texts.push(self.text_of(prompt).map_err(|problem| failed(problem.as_str()))?);
        }
        let Self { section, tokenizer, template, eos_token_ids, samples, .. } = self;
        let Some(decoder) = examination.model.decoder_mut() else { return Ok(()) };
        let mut model =
            DecoderLanguageModel::new(decoder, examination.backend, tokenizer, eos_token_ids.clone());
        let mut requests = Vec::new();
        for text in texts {
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

/// How tasks are run.
fn options<'a>(section: &EvalSection, render: foundry_eval::ChatTemplate<'a>, seed: u64) -> RunOptions<'a> {
    let limit = section.limit.map(|limit| match limit {
        share if share < 1.0 => Limit::Fraction(share),
        count => Limit::Count(count as usize),
    });
    RunOptions {
        num_fewshot: section.num_fewshot,
        limit,
        style: PromptStyle {
            chat_template: section.apply_chat_template.then_some(render),
            fewshot_as_multiturn: section.apply_chat_template,
            system_instruction: None,
        },
        seed,
        bootstrap_iterations: 1000,
        ..RunOptions::default()
    }
}

fn render(template: Option<&ChatTemplate>, turns: &[Turn], asks: bool) -> Result<String, String> {
    rendered(template.ok_or("no chat template")?, turns, asks)
}

fn failed(error: impl Into<foundry_engine::BoxedError>) -> EngineError {
    EngineError::Callback { name: "eval", source: error.into() }
}

impl Callback for Examiner {
    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        let Ok(text) = std::fs::read_to_string(&self.samples) else { return Ok(()) };
        // What came after the step that the run goes on from is written anew, and what came at it, if that is owed.
        let first_anew = report.step + u64::from(!report.owes_examination);
        let is_kept = |line: &&str| {
            let step = serde_json::from_str::<Value>(line).ok().and_then(|line| line.get("step")?.as_u64());
            step.is_some_and(|step| report.resumed_from.is_some() && step < first_anew)
        };
        let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.samples, kept).map_err(failed)
    }

    fn examines_after(&self, step: u64, is_last: bool) -> bool {
        match step {
            0 => !self.section.prompts.is_empty(),
            step => is_last || self.section.steps.is_some_and(|steps| step.is_multiple_of(steps)),
        }
    }

    fn examine(&mut self, examination: &mut Examination<'_>) -> Result<Findings, EngineError> {
        if !self.section.prompts.is_empty()
            && let Err(error) = self.answers(examination)
        {
            let step = examination.step;
            say(self.quiet, format!("warning: step {step}: {error}; the run goes on without these answers"));
        }
        if examination.step == 0 || self.selection.tasks.is_empty() {
            return Ok(Findings::Whole(Vec::new()));
        }
        Ok(self.tasks(examination).map_or(Findings::BrokenOff, Findings::Whole))
    }
}
