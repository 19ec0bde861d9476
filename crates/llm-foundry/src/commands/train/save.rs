//! Writing what was trained: the files of PEFT or transformers, and the tokenizer.

use crate::card::Card;
use crate::crash::CrashAt;
use crate::failure::{Failure, Outcome};
use crate::special_tokens;
use crate::subject::Subject;
use foundry_engine::checkpoint::CrashHook;
use foundry_engine::{DecoderModel, GatherDecoder, Trainable};
use foundry_formats::{Tokenizer, flush_dir, flush_tree};
use foundry_kernels::Backend;
use foundry_models::{SaveOptions, Tuning};
use std::fs;
use std::path::Path;

/// How this run's model is gathered, to be written into a directory.
pub(super) fn gatherer(subject: &Subject) -> GatherDecoder<'_> {
    Box::new(move |decoder, backend| {
        let write_model = if matches!(subject.tuning, Tuning::Lora(_)) {
            decoder.gather_adapter(backend, &subject.name)?
        } else {
            let generation = subject.files.as_ref().and_then(|files| files.generation_config.as_ref());
            let (config, generation) = match &subject.tokenizer {
                Some(tokenizer) => special_tokens::aligned(&subject.hf, generation, tokenizer),
                None => (subject.hf.clone(), generation.cloned()),
            };
            decoder.gather_model(backend, &config, generation.as_ref(), &SaveOptions::default())?
        };
        let tokenizer = subject.tokenizer.as_ref().map(Tokenizer::files);
        Ok(Box::new(move |dir| {
            write_model(dir)?;
            if let Some(tokenizer) = tokenizer {
                tokenizer.save(dir)?;
            }
            Ok(())
        }))
    })
}

/// Name of the directory in which the result is built.
const PARTIAL: &str = "final.partial";

/// The final result: built beside, flushed, then moved in file by file, so that no file is ever half there. On an error
/// nothing half-made is left, and the checkpoints are as they were.
pub(super) fn into_output_dir(
    model: &DecoderModel<'_>,
    backend: &dyn Backend,
    card: &Card,
    output_dir: &Path,
) -> Outcome {
    let partial = output_dir.join(PARTIAL);
    let crash = CrashAt::hook(CrashAt::from_env());
    let result = build(model, backend, card, &partial).and_then(|()| move_in(&partial, output_dir, &crash));
    if result.is_err() {
        // What went wrong is worth more words than a failed clean-up.
        let _ = fs::remove_dir_all(&partial);
    }
    result
}

fn build(model: &DecoderModel<'_>, backend: &dyn Backend, card: &Card, partial: &Path) -> Outcome {
    let at = |what: &'static str| move |e: std::io::Error| Failure::io(what, partial, &e);
    // Of a run that was killed here.
    if partial.exists() {
        fs::remove_dir_all(partial).map_err(at("clear"))?;
    }
    fs::create_dir(partial).map_err(at("create"))?;
    model.save(backend, partial).map_err(|e| unsaved(&*e))?;
    fs::write(partial.join("README.md"), card.to_markdown()).map_err(at("write the model card into"))?;
    flush_tree(partial).map_err(|e| unsaved(&e))
}

fn move_in(partial: &Path, output_dir: &Path, crash: &CrashHook) -> Outcome {
    let at = |what: &'static str| move |e: std::io::Error| Failure::io(what, output_dir, &e);
    let mut names: Vec<_> =
        fs::read_dir(partial).map_err(at("list"))?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    crash("final.before_move").map_err(at("move files into"))?;
    for name in &names {
        fs::rename(partial.join(name), output_dir.join(name)).map_err(at("move files into"))?;
        crash("final.during_move").map_err(at("move files into"))?;
    }
    fs::remove_dir(partial).map_err(at("clear"))?;
    flush_dir(output_dir).map_err(at("flush"))
}

fn unsaved(error: &dyn std::error::Error) -> Failure {
    Failure::Run(format!(
        "the result could not be saved: {error}; the checkpoints are unchanged: free disk space or correct the permissions, \
         then add --resume to the command to save it again"
    ))
}
