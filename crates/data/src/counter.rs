//! Counting examples on their way to rows: what [`DataReport`] says about them.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use foundry_formats::Tokenizer;

use crate::IGNORED;
use crate::dataset::{PackedRow, Sequence};
use crate::report::DataReport;
use crate::spec::{DataSpec, PackingStrategy};
use crate::tokenize::Tokenized;

/// Examples that are remembered to find duplicates: 8 bytes each, so memory does not grow with the data.
const REMEMBERED: usize = 1_000_000;

/// Fills a report, example by example.
#[derive(Debug)]
pub(crate) struct ExampleCounter {
    pub(crate) report: DataReport,
    /// Tokens that are kept of each example: `max_length`, unless packing splits instead of truncating.
    pub(crate) limit: usize,
    packing: bool,
    eos: Vec<u32>,
    seen: HashSet<u64>,
}

impl ExampleCounter {
    /// Goes on from `report`, which knows what was noticed while reading.
    pub(crate) fn new(spec: &DataSpec, tokenizer: &Tokenizer, report: DataReport) -> Self {
        let mut eos = spec.eos_token_ids.clone();
        eos.extend(tokenizer.eos_token().and_then(|token| tokenizer.token_to_id(token)));
        let truncates = !spec.packing || spec.packing_strategy == PackingStrategy::Bfd;
        let limit = spec.max_length.filter(|_| truncates).unwrap_or(usize::MAX);
        Self { report, limit, packing: spec.packing, eos, seen: HashSet::new() }
    }

    /// Takes over what was noticed while reading, which is counted from the start each time.
    pub(crate) fn adopt(&mut self, read: &DataReport) {
        let report = &mut self.report;
        report.format = read.format;
        (report.blank, report.skipped, report.rests) = (read.blank, read.skipped, read.rests);
        report.problems.clone_from(&read.problems);
        (report.filtered, report.contaminated) = (read.filtered, read.contaminated);
        report.unused_keys.clone_from(&read.unused_keys);
        for (source, read) in report.sources.iter_mut().zip(&read.sources) {
            source.format = read.format;
        }
        for (file, read) in report.files.iter_mut().zip(&read.files) {
            file.examples = read.examples;
        }
    }

    /// Counts one example, not yet truncated.
    pub(crate) fn example(&mut self, example: &Tokenized) {
        let Sequence { tokens, labels } = &example.sequence;
        let kept = tokens.len().min(self.limit);
        let is_learned = self.lengths(
            (example.file_number, example.source_number),
            tokens.len(),
            has_label(&labels[..kept]),
        );
        let report = &mut self.report;
        report.prompt_not_prefix += usize::from(example.prompt_not_prefix);
        report.double_bos += usize::from(example.double_bos);
        report.null_content += usize::from(example.null_content);
        report.empty_answers += usize::from(example.empty_answer && !example.continues);
        report.rewritten += usize::from(example.rewritten);
        report.plain_ends += usize::from(example.plain_end);
        report.tags_leave_out += usize::from(example.tags_leave_out);
        report.split += usize::from(example.first_of_split);
        if is_learned {
            // The first token of a sequence is never predicted, so its label does not count.
            let ends = labels[1..kept.max(1)].iter().any(|&l| l >= 0 && self.eos.contains(&(l as u32)));
            report.eos_trained += usize::from(ends);
            if let Some(source) = report.sources.get_mut(example.source_number) {
                source.eos_trained += usize::from(ends);
            }
        }
        self.duplicate(&example.sequence);
    }

    /// Counts what the length of an example says, in tokens and not yet truncated, and whether what is kept of it
    /// `has_label`; `place`: the numbers of its file and its source. Returns whether it is learned from.
    pub(crate) fn lengths(&mut self, place: (usize, usize), len: usize, has_label: bool) -> bool {
        let kept = len.min(self.limit);
        let report = &mut self.report;
        report.examples += 1;
        report.truncated += usize::from(kept < len);
        report.truncated_tokens += len - kept;
        report.lengths.add(len);
        if let Some(file) = report.files.get_mut(place.0) {
            file.tokens += kept;
        }
        let is_learned = len > 0 && has_label;
        match (len == 0, is_learned, self.packing) {
            (true, _, _) => report.dropped_empty += 1,
            (false, false, true) => report.kept_unlabelled += 1,
            (false, false, false) => report.dropped_unlabelled += 1,
            (false, true, _) => {
                if let Some(source) = report.sources.get_mut(place.1) {
                    source.learned += 1;
                }
            }
        }
        is_learned
    }

    /// Counts an example whose tokens and labels were all seen before.
    fn duplicate(&mut self, sequence: &Sequence) {
        if self.seen.len() >= REMEMBERED {
            return;
        }
        // Without a random key: the same data gives the same report.
        let mut hasher = DefaultHasher::new();
        sequence.tokens.hash(&mut hasher);
        sequence.labels.hash(&mut hasher);
        self.report.compared += 1;
        self.report.duplicates += usize::from(!self.seen.insert(hasher.finish()));
    }

    /// Counts a row that goes to the model.
    pub(crate) fn row(&mut self, row: &PackedRow) {
        let report = &mut self.report;
        report.rows += 1;
        report.sequences += row.seq_lens.len();
        report.tokens += row.tokens.len();
        report.labelled_tokens += row.labelled();
        report.longest_row = report.longest_row.max(row.tokens.len());
    }
}

/// TRL looks at all labels of an example, the first one included.
pub(crate) fn has_label(labels: &[i32]) -> bool {
    labels.iter().any(|&label| label != IGNORED)
}
