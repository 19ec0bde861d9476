//! What happened to the data on the way to rows: the numbers that show silent truncation, lost labels and missing EOS
//! before step 1 instead of after the run.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::lengths::Lengths;
use crate::shape::Shape;

/// Examples of one of several sources that tell something about the others.
const EXAMPLES_THAT_TELL: usize = 10;

/// Examples read from one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileCount {
    /// The file as it was named.
    pub path: PathBuf,
    /// Examples in it.
    pub examples: usize,
    /// Their tokens after truncation.
    pub tokens: usize,
}

/// What one source teaches about endings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceCount {
    /// Its first file, as it was named.
    pub first: PathBuf,
    /// Shape of its rows; `None` before the first.
    pub format: Option<Shape>,
    /// Examples with something to learn.
    pub learned: usize,
    /// Of these, examples that train an end-of-sequence token.
    pub eos_trained: usize,
}

/// Counts over one loaded data set. An "example" is one row of the files, before packing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DataReport {
    /// The shape of the data, given or detected; `None` only before anything was read.
    pub format: Option<Shape>,
    /// Examples per file.
    pub files: Vec<FileCount>,
    /// Endings, source by source.
    pub sources: Vec<SourceCount>,
    /// Examples read, those dropped included.
    pub examples: usize,
    /// Blank lines or empty paragraphs and files passed over.
    pub blank: usize,
    /// Examples cut at `max_length`.
    pub truncated: usize,
    /// Tokens that the cuts removed.
    pub truncated_tokens: usize,
    /// Examples dropped because they have no tokens.
    pub dropped_empty: usize,
    /// Examples dropped because no label was left (only without packing, as in TRL).
    pub dropped_unlabelled: usize,
    /// Packed examples that have tokens but no label: they cost time and teach nothing.
    pub kept_unlabelled: usize,
    /// Examples whose labels contain an end-of-sequence token after truncation.
    pub eos_trained: usize,
    /// Examples that begin with two BOS tokens.
    pub double_bos: usize,
    /// Examples whose tokenised prompt is no prefix of prompt + completion (the loss starts where they part).
    pub prompt_not_prefix: usize,
    /// Conversations whose earlier turns are rendered differently once later ones follow, and that were not split.
    pub rewritten: usize,
    /// Rows of which the template's generation tags mark fewer turns than the assistant has, or not how they end.
    pub tags_leave_out: usize,
    /// Rows with a learned turn that ends with no special token (`allow_missing_eos`).
    pub plain_ends: usize,
    /// Conversations that became a row for each learned turn.
    pub split: usize,
    /// Conversations in which `content: null` was rendered as an empty text (but for calls of tools).
    pub null_content: usize,
    /// Examples with an answer that says nothing, which is learned as such.
    pub empty_answers: usize,
    /// Keys of the rows that were not used.
    pub unused_keys: BTreeSet<String>,
    /// Lengths of the examples before truncation, in tokens.
    pub lengths: Lengths,
    /// Examples whose tokens and labels equal those of an earlier one.
    pub duplicates: usize,
    /// Examples that were compared to find duplicates: all, or the first million.
    pub compared: usize,
    /// Examples that were read to see how they end, whether they repeat others and whether they begin with two BOS
    /// tokens; the counts of these are extrapolated from them. `None`: all.
    pub examined: Option<usize>,
    /// Examples that share a long run of words with the evaluation data; `None`: not looked for.
    pub contaminated: Option<usize>,
    /// These examples were left out (`decontaminate.drop`).
    pub decontaminated: bool,
    /// Rows of the evaluation data that could not be read, so that nothing was compared with them.
    pub evaluation_skipped: usize,
    /// What was wrong with the first of these.
    pub evaluation_problems: Vec<String>,
    /// Rows that could not be used and were left out (`on_error: skip`).
    pub skipped: usize,
    /// Files of which nothing behind such a row was read: how many rows were lost with it is not known.
    pub rests: usize,
    /// What was wrong with the first of them.
    pub problems: Vec<String>,
    /// Examples left out by their length or their characters.
    pub filtered: usize,
    /// Examples left out because an earlier one is equal.
    pub deduplicated: usize,
    /// Rows after packing.
    pub rows: usize,
    /// Sequences in these rows.
    pub sequences: usize,
    /// Tokens in these rows.
    pub tokens: usize,
    /// Labels that count in the loss.
    pub labelled_tokens: usize,
    /// Tokens of the longest row.
    pub longest_row: usize,
}

impl DataReport {
    /// Share of the kept examples whose end is trained, in percent; 0 without examples.
    pub fn eos_trained_percent(&self) -> f64 {
        let kept = self.examples - self.dropped_empty - self.dropped_unlabelled;
        if kept == 0 { 0.0 } else { 100.0 * self.eos_trained as f64 / kept as f64 }
    }

    /// A source from which the model would learn to answer but not to stop: none of its examples, which are
    /// instructions of some kind, trains an end of sequence. Plain text may well be learned without.
    pub fn never_ends(&self) -> Option<&SourceCount> {
        // The start of a mixed stream shows a few examples of a rare source, which may all be long ones.
        let enough = if self.sources.len() > 1 { EXAMPLES_THAT_TELL } else { 1 };
        self.sources.iter().find(|source| {
            let has_ends = source.format.is_none_or(|shape| shape == Shape::Text);
            !has_ends && source.learned >= enough && source.eos_trained == 0
        })
    }

    /// Filled share of the rows, in percent of `max_length`.
    pub fn fill_percent(&self, max_length: usize) -> f64 {
        let room = self.rows * max_length;
        if room == 0 { 0.0 } else { 100.0 * self.tokens as f64 / room as f64 }
    }

    /// Sentences about what a user should look at, most harmful first; empty when all is well.
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.double_bos > 0 {
            out.push(format!(
                "{} example(s) begin with two BOS tokens: the text or the template already holds the one that the \
                 tokenizer adds; remove it from the data",
                self.double_bos
            ));
        }
        if self.eos_trained == 0 && self.rows > 0 {
            out.push(
                "no example trains an end-of-sequence token, so the model will not learn to stop; check the chat \
                 template, `eos_token`, `append_eos` and `max_length`"
                    .to_owned(),
            );
        }
        if self.skipped > 0 {
            let share = percent(self.skipped, self.skipped.saturating_add(self.examples));
            let first: String = self.problems.iter().map(|problem| format!("\n    {problem}")).collect();
            let rests = match self.rests {
                0 => String::new(),
                files => format!(", and in {files} file(s) everything after such a row"),
            };
            out.push(format!(
                "{} row(s) ({share:.1} %) could not be used and were left out (`on_error: skip`){rests}:{first}",
                self.skipped
            ));
        }
        self.warn_of_templates(&mut out);
        let lost = 100.0 * self.truncated_tokens as f64 / (self.tokens + self.truncated_tokens).max(1) as f64;
        if lost > 10.0 {
            out.push(format!(
                "{lost:.0} % of all tokens are cut off at `max_length`; raise it, or keep them with \
                 `packing_strategy: bfd_split` or `wrapped`"
            ));
        }
        if self.dropped_unlabelled + self.kept_unlabelled > 0 {
            out.push(format!(
                "{} example(s) have no label left (a prompt that fills `max_length`); raise `max_length` or shorten them",
                self.dropped_unlabelled + self.kept_unlabelled
            ));
        }
        if percent(self.duplicates, self.compared) > 1.0 {
            out.push(format!(
                "{} of {} example(s) repeat an earlier one exactly: they are learned by heart; remove them",
                self.duplicates, self.compared
            ));
        }
        self.warn_of_evaluation(&mut out);
        self.warn_of_answers(&mut out);
        if self.prompt_not_prefix > 0 {
            out.push(format!(
                "{} example(s): the tokens of the prompt are no prefix of prompt + completion, the loss starts where \
                 they part; end prompts on a token boundary or use a template that renders the prompt the same way",
                self.prompt_not_prefix
            ));
        }
        out
    }
}

impl DataReport {
    /// Turns that say nothing.
    fn warn_of_answers(&self, out: &mut Vec<String>) {
        if self.empty_answers > 0 {
            out.push(format!(
                "{} example(s) have an empty answer, which teaches to stop at once; leave them out with \
                 `filter: {{drop_empty_answers: true}}`, or set `train: false` on the turn",
                self.empty_answers
            ));
        }
        if self.null_content > 0 {
            out.push(format!(
                "{} conversation(s) have a message with `content: null`, which is rendered as an empty text",
                self.null_content
            ));
        }
    }

    /// What is shared with the evaluation data.
    fn warn_of_evaluation(&self, out: &mut Vec<String>) {
        if let Some(contaminated) = self.contaminated.filter(|&n| n > 0) {
            let and = match self.decontaminated {
                true => "and were left out (`decontaminate.drop`)",
                false => "whose figures will flatter; leave them out with `decontaminate.drop: true`",
            };
            let comma = if self.decontaminated { "" } else { "," };
            out.push(format!(
                "{contaminated} example(s) share long runs of words with the evaluation data{comma} {and}"
            ));
        }
        if self.evaluation_skipped > 0 {
            let first: String = self.evaluation_problems.iter().map(|p| format!("\n    {p}")).collect();
            out.push(format!(
                "{} row(s) of the evaluation data under `decontaminate` could not be read, so nothing was compared with \
                 them (`on_error: skip`):{first}",
                self.evaluation_skipped
            ));
        }
    }

    /// What the chat template does to turns that are to be learned.
    fn warn_of_templates(&self, out: &mut Vec<String>) {
        if self.rewritten > 0 {
            out.push(format!(
                "{} conversation(s): the chat template renders earlier turns differently once later ones follow \
                 (thoughts left out?), so they are learned from text that the model does not see when it answers; use \
                 `multi_turn: split` or `auto`",
                self.rewritten
            ));
        }
        if self.plain_ends > 0 {
            out.push(format!(
                "{} row(s): the chat template ends a learned turn with no special token, from which the model may not learn \
                 to stop (`allow_missing_eos: true`)",
                self.plain_ends
            ));
        }
        if self.tags_leave_out > 0 {
            out.push(format!(
                "{} row(s): the generation tags of the chat template leave out a turn of the assistant, or the token that \
                 ends it, so that it is not learned; mend the tags, or take them out (turns are then found without)",
                self.tags_leave_out
            ));
        }
    }
}

/// `part` of `all` in percent; 0 of nothing.
fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.map_or("unknown", Shape::name);
        writeln!(f, "format {format}: {} example(s) in {} file(s)", self.examples, self.files.len())?;
        let tokens: usize = self.files.iter().map(|file| file.tokens).sum();
        for file in &self.files {
            let share = percent(file.tokens, tokens);
            let path = file.path.display();
            writeln!(f, "  {path}: {} example(s), {} tokens ({share:.1} %)", file.examples, file.tokens)?;
        }
        writeln!(
            f,
            "{} row(s), {} sequence(s), {} tokens; longest row {}",
            self.rows, self.sequences, self.tokens, self.longest_row
        )?;
        let learned = percent(self.labelled_tokens, self.tokens);
        writeln!(
            f,
            "learned {} tokens ({learned:.1} %), masked {} ({:.1} %)",
            self.labelled_tokens,
            self.tokens - self.labelled_tokens,
            100.0 - learned
        )?;
        self.write_lengths(f)?;
        let truncated = percent(self.truncated, self.examples);
        writeln!(f, "truncated {} ({truncated:.1} %, {} tokens)", self.truncated, self.truncated_tokens)?;
        let dropped = percent(self.dropped_empty + self.dropped_unlabelled, self.examples);
        writeln!(
            f,
            "dropped {} empty, {} without labels ({dropped:.1} %); {} blank passed over",
            self.dropped_empty, self.dropped_unlabelled, self.blank
        )?;
        writeln!(f, "end of sequence trained in {:.1} % of the examples", self.eos_trained_percent())?;
        let of = if self.compared < self.examples { "compared" } else { "all" };
        let share = percent(self.duplicates, self.compared);
        writeln!(f, "duplicates {} ({share:.1} % of {of})", self.duplicates)?;
        write!(f, "double BOS {}", self.double_bos)?;
        if let Some(examined) = self.examined {
            write!(f, "\n(ends, duplicates and double BOS: by {examined} examples from all over the data)")?;
        }
        let dropped = self.contaminated.filter(|_| self.decontaminated).unwrap_or(0);
        if let Some(contaminated) = self.contaminated {
            let share = percent(contaminated, self.examples + dropped);
            write!(f, "\nshared with the evaluation data {contaminated} ({share:.1} %)")?;
        }
        if self.skipped > 0 || self.filtered + self.deduplicated + dropped > 0 {
            write!(
                f,
                "\nleft out: {} unusable, {} by the filter, {} equal to an earlier one",
                self.skipped, self.filtered, self.deduplicated
            )?;
            if dropped > 0 {
                write!(f, ", {dropped} shared with the evaluation data")?;
            }
        }
        if !self.unused_keys.is_empty() {
            let keys: Vec<&str> = self.unused_keys.iter().map(String::as_str).collect();
            write!(f, "\nkeys not used: {}", keys.join(", "))?;
        }
        for warning in self.warnings() {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl DataReport {
    /// The histogram, a bar for each class.
    fn write_lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Characters of the longest bar.
        const WIDTH: u64 = 40;
        let of = |p: f64| self.lengths.percentile(p);
        writeln!(
            f,
            "tokens of an example: half at most {}, 90 % at most {}, 99 % at most {}, the longest {}",
            of(50.0),
            of(90.0),
            of(99.0),
            self.lengths.longest()
        )?;
        let classes = self.lengths.classes();
        let most = classes.iter().map(|class| class.2).max().unwrap_or(0).max(1);
        for (from, upto, examples) in classes {
            let bar = "█".repeat((examples * WIDTH).div_ceil(most) as usize);
            let bar = if bar.is_empty() { bar } else { format!(" {bar}") };
            writeln!(f, "  {from:>7} to {upto:>7} {examples:>9}{bar}")?;
        }
        Ok(())
    }
}
