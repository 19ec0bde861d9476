//! `llm-foundry data tokenize`: the training data as token files, in shards.

use crate::cli::{MachineArgs, TokenizeArgs};
use crate::config;
use crate::console::{self, bytes, duration, thousands};
use crate::corpus::CorpusFiles;
use crate::failure::{Failure, Outcome};
use crate::hub::Fetch;
use crate::machine::Machine;
use crate::model_source::expand_home;
use crate::subject::open_tokenizer_alone;
use foundry_data::tokens::{Progress, TokenizeSpec, Tokenized, tokenize_shard};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

/// Time between two lines about the progress.
const EVERY: Duration = Duration::from_secs(10);

/// Writes one shard.
pub(crate) fn run(args: &TokenizeArgs, machine: &MachineArgs) -> Outcome {
    let resolved = config::load(&args.config.config, &args.config.overrides)?;
    let config = &resolved.config;
    let machine_used = Machine::choose(machine, config.training.threads)?;
    let files = CorpusFiles::find(config, Fetch::unless_quiet(machine.quiet))?;
    let (tokenizer, eos_token_ids) = open_tokenizer_alone(config, machine.quiet)?;
    let dir = expand_home(&args.output.to_string_lossy());
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Input(format!("-o {}: a file is there; name a directory", dir.display())));
    }
    let spec = TokenizeSpec {
        data: files.training_spec(config, eos_token_ids, machine_used.threads, args.rendered_at),
        shard: args.shard,
        dir,
        tokens_per_file: args.tokens_per_file,
        force: args.force,
    };
    let began = Instant::now();
    let mut told = began;
    let mut progress = |progress: Progress| {
        if told.elapsed() > EVERY {
            told = Instant::now();
            let tokens = thousands(progress.counts.tokens);
            console::say(machine.quiet, format!("  {tokens} tokens, {} whole file(s)", progress.files));
        }
    };
    let done = tokenize_shard(&spec, &tokenizer, &mut progress).map_err(Failure::of_data)?;
    let seconds = began.elapsed().as_secs_f64();
    let mut out = anstream::stdout();
    match args.json {
        true => writeln!(out, "{}", to_json(&done, &spec, seconds))?,
        false => writeln!(out, "{}", to_text(&done, &spec, seconds))?,
    }
    Ok(())
}

fn to_json(done: &Tokenized, spec: &TokenizeSpec, seconds: f64) -> serde_json::Value {
    json!({
        "dir": spec.dir, "shard": spec.shard.index, "shards": spec.shard.of, "counts": done.counts,
        "files": done.files, "bytes": done.bytes, "files_kept": done.kept, "was_complete": done.was_complete,
        "problems": done.problems, "seconds": seconds,
    })
}

fn to_text(done: &Tokenized, spec: &TokenizeSpec, seconds: f64) -> String {
    let counts = &done.counts;
    let share = |part: u64, all: u64| 100.0 * part as f64 / all.max(1) as f64;
    let mut text = format!(
        "shard {} in {}: {} documents, {} tokens ({:.1} % learned, end learned in {:.1} % of the documents), {} file(s), {}",
        spec.shard,
        spec.dir.display(),
        thousands(counts.documents),
        thousands(counts.tokens),
        share(counts.learned, counts.tokens),
        share(counts.ends_learned, counts.documents),
        done.files,
        bytes(done.bytes)
    );
    match (done.was_complete, done.kept) {
        (true, _) => text += "; it was there already",
        (false, 0) => text += &format!("; in {}", duration(seconds)),
        (false, kept) => {
            text += &format!("; in {}, {kept} file(s) of an earlier attempt kept", duration(seconds))
        }
    }
    let left_out = [
        (counts.skipped, "unusable"),
        (counts.filtered, "by the filter"),
        (counts.deduplicated, "equal to an earlier one"),
        (counts.contaminated, "with evaluation texts (left out only with `drop: true`)"),
    ];
    for (count, why) in left_out.iter().filter(|(count, _)| *count > 0) {
        text += &format!("\nrows {why}: {}", thousands(*count));
    }
    for problem in &done.problems {
        text += &format!("\nleft out: {problem}");
    }
    if counts.double_bos > 0 {
        text += &format!("\nwarning: {} document(s) begin with two BOS tokens", thousands(counts.double_bos));
    }
    if counts.nothing_learned > 0 {
        text +=
            &format!("\nwarning: no token is learned in {} document(s)", thousands(counts.nothing_learned));
    }
    text
}
