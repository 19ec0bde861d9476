//! Writing what was trained: the files of PEFT or transformers, and the tokenizer.

use crate::failure::{Failure, Outcome};
use crate::subject::Subject;
use foundry_engine::{DecoderModel, SaveDecoder, Trainable};
use foundry_kernels::Backend;
use foundry_models::{SaveOptions, Tuning};
use std::fs;
use std::path::Path;

/// How this run's model is written into a directory.
pub(super) fn saver(subject: &Subject) -> SaveDecoder<'_> {
    Box::new(move |decoder, backend, dir| {
        if matches!(subject.tuning, Tuning::Lora(_)) {
            decoder.save_adapter(backend, dir, &subject.name)?;
        } else {
            let generation = subject.files.as_ref().and_then(|files| files.generation_config.as_ref());
            decoder.save_model(backend, dir, &subject.hf, generation, &SaveOptions::default())?;
        }
        if let Some(tokenizer) = &subject.tokenizer {
            tokenizer.save(dir)?;
        }
        Ok(())
    })
}

/// The final result: built beside, flushed, then moved in file by file, so that no file is ever half there.
pub(super) fn into_output_dir(model: &DecoderModel<'_>, backend: &dyn Backend, output_dir: &Path) -> Outcome {
    let partial = output_dir.join("final.partial");
    let at = |what: &'static str| move |e: std::io::Error| Failure::io(what, output_dir, &e);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(at("clear"))?;
    }
    fs::create_dir(&partial).map_err(at("write into"))?;
    model.save(backend, &partial).map_err(Failure::run)?;
    let mut names: Vec<_> =
        fs::read_dir(&partial).map_err(at("list"))?.flatten().map(|e| e.file_name()).collect();
    names.sort();
    for name in &names {
        fs::File::open(partial.join(name)).and_then(|file| file.sync_all()).map_err(at("flush files in"))?;
    }
    for name in &names {
        fs::rename(partial.join(name), output_dir.join(name)).map_err(at("move files into"))?;
    }
    fs::remove_dir(&partial).map_err(at("clear"))
}
