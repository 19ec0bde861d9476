//! What is wrong with a configuration, and how a person is told: place, source line, caret, remedy.

use super::tree::Place;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;

/// The texts that places point into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// The configuration file, then what it is composed from.
    pub(crate) files: Vec<SourceText>,
    /// The overrides on the command line.
    pub(crate) arguments: Vec<String>,
}

/// A configuration file, or a built-in preset.
#[derive(Clone, Debug)]
pub(crate) struct SourceText {
    /// Its name as the user wrote it.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

impl Sources {
    /// Name of the configuration file.
    fn main(&self) -> &str {
        self.files.first().map_or("", |file| &file.name)
    }

    /// For people: `my.yaml:7`, or the argument that set a value.
    pub(crate) fn describe(&self, place: &Place) -> String {
        match place {
            Place::Argument(i, _) => format!("command line: {}", self.arguments[*i]),
            Place::File(i, range) => {
                let SourceText { name, text } = &self.files[*i];
                let before = &text.as_bytes()[..range.start.min(text.len())];
                format!("{name}:{}", before.iter().filter(|&&b| b == b'\n').count() + 1)
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    /// Where; `None` concerns the configuration as a whole.
    pub(crate) place: Option<Place>,
    /// What is wrong, naming the value.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

/// Everything that is wrong with one configuration.
#[derive(Debug)]
pub(crate) struct Problems {
    /// In the order of their places.
    pub(crate) list: Vec<Problem>,
    /// What the places point into.
    pub(crate) sources: Sources,
}

impl Problems {
    /// The report, one snippet for each problem.
    pub(crate) fn render(&self, colour: bool) -> String {
        let mut text: Vec<String> = self.list.iter().map(|p| self.render_one(p, colour)).collect();
        if self.list.len() > 1 {
            text.push(format!("{} problems in {}", self.list.len(), self.sources.main()));
        }
        text.join("\n\n")
    }

    /// Each problem's line in the configuration file, from 0, where it has one, and its message.
    pub(crate) fn lines(&self) -> Vec<(Option<usize>, String)> {
        let line = |place: &Place| match place {
            Place::File(0, range) => {
                let text = &self.sources.files[0].text;
                Some(text.as_bytes()[..range.start.min(text.len())].iter().filter(|&&b| b == b'\n').count())
            }
            _ => None,
        };
        self.list.iter().map(|p| (p.place.as_ref().and_then(line), p.message.clone())).collect()
    }

    fn render_one(&self, problem: &Problem, colour: bool) -> String {
        let (path, source, span) = match &problem.place {
            Some(Place::File(i, span)) => {
                let SourceText { name, text } = &self.sources.files[*i];
                (name.as_str(), text.as_str(), span.clone())
            }
            Some(Place::Argument(i, span)) => {
                ("command line", self.sources.arguments[*i].as_str(), span.clone())
            }
            None => (self.sources.main(), "", 0..0),
        };
        let help = problem.help.as_deref().map(|help| Level::HELP.message(help));
        let title = Level::ERROR.primary_title(problem.message.as_str());
        let group = match &problem.place {
            None => title.element(annotate_snippets::Origin::path(path)),
            Some(_) => title.element(
                Snippet::source(source)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(visible(source, span))),
            ),
        };
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
        renderer.render(&[group.elements(help)])
    }
}

/// At least one character, at most to the end of the line, inside the text.
fn visible(source: &str, span: Range<usize>) -> Range<usize> {
    let start = floor_boundary(source, span.start);
    let line_end = source[start..].find('\n').map_or(source.len(), |n| start + n);
    let end = floor_boundary(source, span.end).min(line_end);
    let next = source[start..].chars().next().map_or(start, |c| start + c.len_utf8());
    start..end.max(next)
}

fn floor_boundary(source: &str, at: usize) -> usize {
    (0..=at.min(source.len())).rev().find(|&i| source.is_char_boundary(i)).unwrap_or(0)
}

/// Names that other programs use for one of our keys: (theirs, ours).
const OTHER_NAMES: &[(&str, &str)] = &[
    ("alpha", "lora_alpha"),
    ("base_model", "name_or_path"),
    ("batch_size", "per_device_train_batch_size"),
    ("bf16", "model.dtype: bfloat16"),
    ("chat_template_path", "tokenizer.chat_template"),
    ("dataset", "train"),
    ("dataset_text_field", "text_field"),
    ("dropout", "lora_dropout"),
    ("epochs", "num_train_epochs"),
    ("fp16", "model.dtype: bfloat16"),
    ("lora_dropout_p", "lora_dropout"),
    ("lora_r", "r"),
    ("lr", "learning_rate"),
    ("lr_scheduler", "lr_scheduler_type"),
    ("max_grad", "max_grad_norm"),
    ("max_seq_length", "max_length"),
    ("micro_batch_size", "per_device_train_batch_size"),
    ("num_epochs", "num_train_epochs"),
    ("rank", "r"),
    ("sample_packing", "packing"),
    ("sequence_len", "max_length"),
    ("steps", "max_steps"),
    ("torch_dtype", "dtype"),
    ("warmup_ratio", "warmup_steps (a number below 1 is a share of all steps)"),
];

/// The known name that `wrong` was meant to be, if one is near: `candidates` of the same section first, then
/// `elsewhere` (paths as `section.key`).
pub(crate) fn suggestion(wrong: &str, candidates: &[&str], elsewhere: &[String]) -> Option<String> {
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
    if let Some((_, ours)) = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == wrong) {
        let word = ours.split([' ', ':']).next().unwrap_or(ours);
        let here = candidates.contains(&word);
        return Some(match elsewhere.iter().find(|path| leaf(path) == leaf(word)) {
            Some(path) if !here => ours.replacen(word, path, 1),
            _ => (*ours).to_owned(),
        });
    }
    if let Some(path) = elsewhere.iter().find(|path| leaf(path) == wrong) {
        return Some(path.clone());
    }
    let foreign = OTHER_NAMES.iter().filter(|(_, ours)| candidates.contains(ours)).map(|(theirs, _)| *theirs);
    let found = nearest(wrong, candidates.iter().copied().chain(foreign))?;
    let ours = OTHER_NAMES.iter().find(|(theirs, _)| *theirs == found && !candidates.contains(theirs));
    Some(ours.map_or(found, |(_, ours)| ours).to_owned())
}

/// The candidate with the fewest edits, when that is few for its length.
pub(crate) fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    candidates
        .map(|c| (strsim::damerau_levenshtein(&wrong, &c.to_lowercase()), c))
        .filter(|(edits, c)| {
            *edits <= (wrong.chars().count().max(c.chars().count()) / 3).max(1)
                || (wrong.len() >= 4 && (c.starts_with(&wrong) || c.ends_with(&wrong)))
                || same_letters(&wrong, c)
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, c)| c)
}

/// A scrambled short name: `rnak` for `rank`.
fn same_letters(a: &str, b: &str) -> bool {
    let sorted = |s: &str| {
        let mut letters: Vec<char> = s.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    a.len() > 2 && sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let keys = ["learning_rate", "lr_scheduler_type", "max_steps", "seed"];
        assert_eq!(nearest("learnign_rate", keys.into_iter()), Some("learning_rate"));
        assert_eq!(nearest("max-steps", keys.into_iter()), Some("max_steps"));
        assert_eq!(nearest("scheduler_type", keys.into_iter()), Some("lr_scheduler_type"));
        assert_eq!(nearest("banana", keys.into_iter()), None);
    }

    #[test]
    fn names_of_other_programs_and_other_sections_are_known() {
        let all = vec!["data.max_length".to_owned(), "lora.r".to_owned(), "training.seed".to_owned()];
        assert_eq!(suggestion("rank", &["r", "lora_alpha"], &all).as_deref(), Some("r"));
        assert_eq!(suggestion("rnak", &["r", "lora_alpha"], &all).as_deref(), Some("r"));
        assert_eq!(suggestion("max_seq_length", &["r"], &all).as_deref(), Some("data.max_length"));
        assert_eq!(suggestion("seed", &["train", "eval"], &all).as_deref(), Some("training.seed"));
    }

    #[test]
    fn a_caret_is_always_visible() {
        assert_eq!(visible("abc\ndef", 1..1), 1..2);
        assert_eq!(visible("abc\ndef", 1..6), 1..3);
        assert_eq!(visible("ü", 1..1), 0..2);
        assert_eq!(visible("", 5..9), 0..0);
    }
}
