//! Everything that can be wrong with data, each with its place and its remedy.

use std::path::{Path, PathBuf};

use foundry_formats::FormatError;

use crate::chat::TemplateError;
pub use crate::place::Place;
use crate::shape::{SUPPORTED_SHAPES, Shape};

/// An error of the data set or of the settings that describe it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file list is empty.
    #[error("no data file is named; list at least one under `data`")]
    NoFiles,
    /// The file system refused.
    #[error("{}: {source}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a kind that is not read.
    #[error("{}: cannot tell the format from the name; supported are .jsonl, .ndjson, .json, .csv, .tsv, .txt (these also with .gz or .zst), .parquet and .arrow{}", path.display(), extension_hint(path))]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// The text is not JSON.
    #[error(
        "{place}: broken JSON: {message}; each line of a .jsonl file must be one complete object, a .json file an array of objects"
    )]
    BrokenJson {
        /// The line serde_json points to (or the line itself in JSON Lines).
        place: Place,
        /// What serde_json said.
        message: String,
    },
    /// A row is JSON but no object.
    #[error("{place}: a row must be an object with named keys, found {found}")]
    NotAnObject {
        /// The row.
        place: Place,
        /// The kind of value found.
        found: &'static str,
    },
    /// The bytes are not UTF-8.
    #[error("{place}: not UTF-8 text; convert the file, for example with `iconv -t utf-8`")]
    NotUtf8 {
        /// The first line with a wrong byte.
        place: Place,
    },
    /// A single line that is far too long to be an example.
    #[error("{place}: the line is longer than {limit} bytes; is this really JSON Lines or text?")]
    LineTooLong {
        /// The line.
        place: Place,
        /// The limit in bytes.
        limit: usize,
    },
    /// A whole file that is one example is far too long to be one.
    #[error("{}: the document is longer than {limit} bytes; cut it with `sample_by: paragraph` or `line`", path.display())]
    DocumentTooLong {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// A file has become shorter while it was read, or since a checkpoint.
    #[error(
        "{}: the file has shrunk: it had {was} bytes and now ends at {now}; do not write to data files during a run",
        path.display()
    )]
    FileShrank {
        /// The file.
        path: PathBuf,
        /// Bytes that it had.
        was: u64,
        /// Bytes that there are.
        now: u64,
    },
    /// Compressed data is damaged or cut off.
    #[error("{}: broken compressed data: {problem}; the download or copy may be incomplete: fetch the file again", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What the decompressor said.
        problem: String,
    },
    /// A Parquet or Arrow file with an outer compression.
    #[error("{}: tables are compressed inside; decompress the outer layer first", path.display())]
    CompressedTable {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet or Arrow file that is damaged.
    #[error("{}: broken table: {problem}; write the file again", path.display())]
    BrokenTable {
        /// The file.
        path: PathBuf,
        /// What contradicts what.
        problem: String,
    },
    /// Rows of a table that cannot be decoded.
    #[error(
        "{place}: broken table: {problem}; {rows} row(s) from there on cannot be read; write the file again, or leave \
         them out with `on_error: skip`"
    )]
    DamagedRows {
        /// The first of them.
        place: Place,
        /// How many are lost.
        rows: u64,
        /// What contradicts what.
        problem: String,
    },
    /// A CSV record or header that does not fit.
    #[error("{place}: {problem}")]
    BadTable {
        /// The record.
        place: Place,
        /// What does not fit.
        problem: String,
    },
    /// This program was built without a part that the file needs.
    #[error("{}: this program was built without the feature `{feature}`; build with it, or convert the file to .jsonl", path.display())]
    NotBuilt {
        /// The file.
        path: PathBuf,
        /// The feature.
        feature: &'static str,
    },
    /// A column named under `columns` is not in a row.
    #[error(
        "{place}: there is no column `{column}`, which `columns` names for `{name}`; the row has {}",
        quoted(keys)
    )]
    NoColumn {
        /// The row.
        place: Place,
        /// The key that the column should have.
        name: String,
        /// The column.
        column: String,
        /// The keys of the row.
        keys: Vec<String>,
    },
    /// Probabilities that do not fit the sources.
    #[error(
        "{sources} source(s) need {sources} probabilities above 0, given are {given:?}; give every source one, or none"
    )]
    BadProbabilities {
        /// Sources there are.
        sources: usize,
        /// Probabilities given.
        given: Vec<f64>,
    },
    /// The keys fit no supported shape.
    #[error(
        "{place}: no supported shape has the keys {}{}; supported are:{SUPPORTED_SHAPES}",
        quoted(keys),
        in_brackets(values)
    )]
    UnknownShape {
        /// The row.
        place: Place,
        /// Its keys.
        keys: Vec<String>,
        /// Of which kind values are that would have to be of another.
        values: Vec<String>,
    },
    /// The keys fit several shapes.
    #[error(
        "{place}: the keys {} fit several shapes ({}); say which with `format: {}`",
        quoted(keys),
        names(shapes, ", "),
        names(shapes, " | ")
    )]
    AmbiguousShape {
        /// The row.
        place: Place,
        /// Its keys.
        keys: Vec<String>,
        /// The shapes that fit.
        shapes: Vec<Shape>,
    },
    /// A row of another shape than the rows before it.
    #[error("{place}: this row has the shape {}, the rows before it {}; a data set has one shape: split it into several files and runs, or convert it", found.name(), expected.name())]
    MixedShapes {
        /// The row.
        place: Place,
        /// Shape of the rows before.
        expected: Shape,
        /// Shape of this row.
        found: Shape,
    },
    /// A row lacks what its shape needs.
    #[error("{place}: not a {} row: {problem}; the row has the keys {}", shape.name(), quoted(keys))]
    BadRow {
        /// The row.
        place: Place,
        /// The expected shape.
        shape: Shape,
        /// What is missing or of the wrong type.
        problem: String,
        /// The keys of the row.
        keys: Vec<String>,
    },
    /// No row at all.
    #[error("the data set is empty: no example in {}; check the files", paths(files))]
    Empty {
        /// The files that were read.
        files: Vec<PathBuf>,
    },
    /// Rows, but none that is used.
    #[error(
        "no example is left: {skipped} row(s) cannot be used, {filtered} left out by `filter`, {deduplicated} as repetitions, {contaminated} share texts with the evaluation data{first}; check the data and these settings"
    )]
    AllLeftOut {
        /// Rows that cannot be used (`on_error: skip`).
        skipped: usize,
        /// Rows left out by their text.
        filtered: usize,
        /// Rows equal to an earlier one.
        deduplicated: usize,
        /// Rows with evaluation texts.
        contaminated: usize,
        /// What was wrong with the first unusable one, with a break before it; empty without one.
        first: String,
    },
    /// Examples, but no tokens or labels in any of them.
    #[error(
        "none of the {examples} example(s) has a token to learn from ({empty} without tokens, {masked} with every label masked); raise `max_length`, or check the data and `completion_only_loss` / `assistant_only_loss`"
    )]
    NothingToLearn {
        /// Examples read.
        examples: usize,
        /// Examples without tokens.
        empty: usize,
        /// Examples whose labels are all masked.
        masked: usize,
    },
    /// Packing needs a length.
    #[error("`packing: true` needs `max_length`: rows are filled up to it")]
    PackingWithoutLength,
    /// A length of 0.
    #[error("`max_length: 0` leaves no token; leave it out for no limit or give at least 2")]
    ZeroLength,
    /// `completion_only_loss` for data without completions.
    #[error("`completion_only_loss: true` needs prompt/completion or Alpaca data, but the data is {}; leave it out, or use `assistant_only_loss` for conversations", shape.name())]
    CompletionOnlyWithoutCompletion {
        /// The shape of the data.
        shape: Shape,
    },
    /// `assistant_only_loss` for data without conversations.
    #[error("`assistant_only_loss: true` needs conversations, but the data is {}; leave it out", shape.name())]
    AssistantOnlyWithoutChat {
        /// The shape of the data.
        shape: Shape,
    },
    /// Two settings that both say what is learned.
    #[error(
        "`train_on` and `completion_only_loss: true` both say what is learned of prompt/completion conversations; keep \
         one of them"
    )]
    LearnedTwice,
    /// `train_on` and `multi_turn` are about conversations.
    #[error("`{key}` needs conversations (`messages`), but the data is {}; leave it out", shape.name())]
    TurnsWithoutChat {
        /// The setting.
        key: &'static str,
        /// The shape of the data.
        shape: Shape,
    },
    /// A conversation that is rendered differently once later messages follow, and is not to be split.
    #[error(
        "{place}: the chat template renders message {message} differently once later messages follow, so that the model would learn from text that it never sees when it answers; use `multi_turn: split` or `auto`"
    )]
    RewrittenTurns {
        /// The row.
        place: Place,
        /// Index of the assistant's message, from 0.
        message: usize,
    },
    /// A conversation of very many messages, each of which is found by rendering all before it.
    #[error(
        "{place}: a conversation of {messages} messages and {bytes} bytes is too long to find each turn in it; cut it into shorter ones"
    )]
    TurnsTooLong {
        /// The row.
        place: Place,
        /// Messages.
        messages: usize,
        /// Bytes of the rendered conversation.
        bytes: usize,
    },
    /// A conversation in which no token is to be learned.
    #[error(
        "{place}: no token of this conversation is to be learned: it has no assistant turn (or none that `assistant_only_loss`, `train_on`, `train` and `weight` let be learned); give it one, or check the generation tags of the chat template"
    )]
    NoAssistantTokens {
        /// The row.
        place: Place,
    },
    /// Preference pairs, of which a part looks like examples.
    #[error(
        "{place}: these are preference pairs (`chosen`, `rejected`), which are not for fine-tuning on examples{}; to learn \
         the chosen answers, map them: `columns: {{prompt: …, completion: chosen}}`, or \
         `columns: {{messages: chosen}}` where they are conversations",
        shape.map_or_else(String::new, |shape| format!(
            ": of the rest, which is {0}, prompts would be learned and no answer (set `format: {0}` if that is meant)",
            shape.name()
        ))
    )]
    PreferencePairs {
        /// The row.
        place: Place,
        /// What would be made of the other keys.
        shape: Option<Shape>,
    },
    /// Conversations need a template.
    #[error("the data is {} but the tokenizer has no chat template; set `chat_template` (a Jinja file), start from the model's instruct version, or use text prompt/completion data", shape.name())]
    NoChatTemplate {
        /// The shape of the data.
        shape: Shape,
    },
    /// The template cannot be compiled, or its arguments are wrong whatever the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template cannot render this conversation.
    #[error("{place}: {source}")]
    Render {
        /// The row.
        place: Place,
        /// What the template said.
        source: TemplateError,
    },
    /// The assistant's turns cannot be found by rendering prefixes.
    #[error(
        "{place}: cannot tell the learned tokens of message {message}: {problem}; use `multi_turn: auto` (a row for each turn of such a conversation), a template with {{% generation %}} tags, or no mask"
    )]
    NotPrefixPreserving {
        /// The row.
        place: Place,
        /// Index of the assistant's message, from 0.
        message: usize,
        /// What differs.
        problem: &'static str,
    },
    /// EOS is to be appended, but there is none.
    #[error(
        "the tokenizer has no EOS token to end texts with; set `eos_token` under `tokenizer`, or `append_eos: false`"
    )]
    NoEosToken,
    /// The tokenizer failed.
    #[error("{place}: {source}")]
    Tokenizer {
        /// The row.
        place: Place,
        /// What the tokenizer said.
        source: Box<FormatError>,
    },
    /// A place in the data that a checkpoint keeps and that this data does not have.
    #[error(
        "the place in the data that the checkpoint keeps does not fit: {problem}; resume with the data and the \
         settings under `data` of the run that wrote it, or start anew"
    )]
    BadState {
        /// What does not fit.
        problem: String,
    },
    /// A stream of rows of any length.
    #[error(
        "streamed data needs `max_length`: memory is set aside for rows of this length; give one, or set `streaming: false`"
    )]
    StreamWithoutLength,
    /// A setting that needs every row at once.
    #[error("`{setting}` is not for streamed data: {remedy}; or set `streaming: false`")]
    NotStreamed {
        /// The setting.
        setting: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The thread that reads ahead has stopped after an error that was reported before.
    #[error("the stream of data ended after an earlier error; start again from the last checkpoint")]
    StreamEnded,
    /// A token file that cannot be read.
    #[error(transparent)]
    TokenFile(Box<FormatError>),
    /// A manifest of token files that is damaged, or a file that is not what its manifest says.
    #[error("{}: not to be trusted: {problem}; copy it again, or write it again with `llm-foundry data tokenize`", path.display())]
    TokenManifest {
        /// The manifest or the token file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A directory of token files in which shards are missing or mixed.
    #[error("{}: {problem}", dir.display())]
    TokenShards {
        /// The directory.
        dir: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Tokens of another tokenizer.
    #[error(
        "{}: these tokens were made with another tokenizer (its vocabulary or the way it cuts texts is different), so they mean nothing to this model; tokenise the data again with this run's `model` and `tokenizer`",
        dir.display()
    )]
    OtherTokenizer {
        /// The directory.
        dir: PathBuf,
    },
    /// Tokens of another chat template.
    #[error(
        "{}: these tokens were made with another chat template than this run's, so that the model would learn one form and be asked in another; tokenise the data again, or set `tokenizer.chat_template` to the one that was used",
        dir.display()
    )]
    OtherTemplate {
        /// The directory.
        dir: PathBuf,
    },
    /// Tokens in which another token has a named role.
    #[error(
        "{}: these tokens were made with {name} `{made}`, and this run's is {}; set it to the one that was used, or tokenise the data again",
        dir.display(),
        asked.as_ref().map_or_else(|| "not set".to_owned(), |asked| format!("`{asked}`"))
    )]
    OtherSpecialToken {
        /// The directory.
        dir: PathBuf,
        /// The role.
        name: String,
        /// Which token the rows were made with.
        made: String,
        /// Which one the run has.
        asked: Option<String>,
    },
    /// Tokens of an older version, of conversations that may have been split, in a run that holds some out.
    #[error(
        "{}: these tokens were written by an older version of this program, which does not say which rows are of one conversation; with `multi_turn: split` or `auto` a held-out part could hold what is trained on\n  tokenise the data again, or give `data.eval` in place of `data.eval_fraction`",
        dir.display()
    )]
    ExamplesUnknown {
        /// The directory.
        dir: PathBuf,
    },
    /// More documents than are numbered.
    #[error(
        "{}: with this file there are 2³² documents or more, which are too many to be indexed; set `streaming: true`",
        path.display()
    )]
    TooManyDocuments {
        /// The file.
        path: PathBuf,
    },
    /// A shard that is being written by another process.
    #[error("{}: another process is writing shard {shard}; wait for it, or stop it first", dir.display())]
    ShardInUse {
        /// The directory.
        dir: PathBuf,
        /// The shard.
        shard: String,
    },
    /// A setting that is settled in the tokens.
    #[error(
        "{}: `data.{key}` is {asked}, but these tokens were made with {made}, and that cannot be changed any more; remove `{key}`, or tokenise the data again",
        dir.display()
    )]
    SettledInTokens {
        /// The directory.
        dir: PathBuf,
        /// The setting.
        key: String,
        /// What the run asks for.
        asked: String,
        /// What the tokens were made with.
        made: String,
    },
    /// Token files and other files in one source.
    #[error(
        "{}: tokens cannot be mixed with other files such as {} in one source; make them two of `data.sources`",
        dir.display(),
        file.display()
    )]
    TokensAmongFiles {
        /// The directory of the tokens.
        dir: PathBuf,
        /// The other file.
        file: PathBuf,
    },
    /// A token file without its manifest.
    #[error("{}: a token file is read together with its manifest; name the directory that `llm-foundry data tokenize` has written", path.display())]
    LooseTokens {
        /// The file.
        path: PathBuf,
    },
    /// Tokens where texts are needed.
    #[error("{}: tokens hold no texts to compare with; name the files that they were made from", path.display())]
    TokensWithoutText {
        /// The file.
        path: PathBuf,
    },
    /// A setting that shards of tokens cannot follow.
    #[error("`{setting}` is not for `data tokenize`: {remedy}")]
    NotTokenized {
        /// The setting.
        setting: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A held-out split that leaves one side empty.
    #[error(
        "a held-out split of {wanted} leaves no example on one side of the {examples} there are; choose a smaller or larger part, or name a separate file"
    )]
    BadHoldout {
        /// The part asked for.
        wanted: String,
        /// Examples there are.
        examples: usize,
    },
}

impl DataError {
    /// Whether it is about one row or one file's content, which can be left out, and not about settings or the system.
    pub(crate) fn is_about_a_row(&self) -> bool {
        use DataError as E;
        matches!(
            self,
            E::BrokenJson { .. }
                | E::NotAnObject { .. }
                | E::NotUtf8 { .. }
                | E::LineTooLong { .. }
                | E::DocumentTooLong { .. }
                | E::Compressed { .. }
                | E::BrokenTable { .. }
                | E::DamagedRows { .. }
                | E::BadTable { .. }
                | E::NoColumn { .. }
                | E::UnknownShape { .. }
                | E::AmbiguousShape { .. }
                | E::MixedShapes { .. }
                | E::BadRow { .. }
                | E::NoAssistantTokens { .. }
                | E::Render { .. }
                | E::NotPrefixPreserving { .. }
                | E::TurnsTooLong { .. }
                | E::Tokenizer { .. }
        )
    }
}

fn quoted(keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().take(20).map(|k| format!("`{k}`")).collect();
    if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
}

fn in_brackets(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) }
}

fn names(shapes: &[Shape], separator: &str) -> String {
    shapes.iter().map(|s| s.name()).collect::<Vec<_>>().join(separator)
}

fn paths(files: &[PathBuf]) -> String {
    files.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn extension_hint(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz" | "bz2" | "zip") => " (decompress the file first)",
        None if path.extension().is_none() => " (a directory? name the files in it)",
        _ => "",
    }
}
