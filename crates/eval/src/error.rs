//! What can go wrong in an evaluation.

use std::path::PathBuf;

/// An evaluation that could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file cannot be read.
    #[error("{}: cannot be read ({source}); check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A task's file is not what it must be.
    #[error("{place}: {problem}; {remedy}")]
    Definition {
        /// File and line.
        place: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },

    /// A template that does not compile.
    #[error("{place}: the template of `{key}` is no valid Jinja: {message}; correct it there")]
    Template {
        /// File and line.
        place: String,
        /// The key it belongs to.
        key: String,
        /// What the template engine said.
        message: String,
    },

    /// A task that calls Python.
    #[error(
        "task `{task}` cannot be run: {place}: `{key}` is the Python function `{function}`, and there is no Python here; \
         the tasks whose functions are built in are hellaswag, winogrande, truthfulqa_mc2, wikitext and ifeval"
    )]
    NeedsPython {
        /// The task.
        task: String,
        /// File and line.
        place: String,
        /// The key.
        key: String,
        /// What it calls.
        function: String,
    },

    /// No task, group or tag of that name.
    #[error("there is no task, group or tag `{name}`{}; {remedy}", did_you_mean(near))]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// Names that are like it.
        near: Vec<String>,
        /// What to do.
        remedy: String,
    },

    /// A document that the task's templates or functions cannot be used with.
    #[error(transparent)]
    Document(Box<DocumentError>),

    /// A split without documents.
    #[error("task `{task}`: split `{split}` has no documents; check the data")]
    NoDocuments {
        /// The task.
        task: String,
        /// The split.
        split: String,
    },

    /// Too few documents to draw examples from.
    #[error(
        "task `{task}`: {wanted} examples are drawn for each question (one more than wanted where the question may be \
         among them), but there are only {available}; ask for fewer with --num-fewshot"
    )]
    FewExamples {
        /// The task.
        task: String,
        /// Wanted.
        wanted: usize,
        /// There.
        available: usize,
    },

    /// The data of a task could not be had.
    #[error("task `{task}`: {problem}")]
    Data {
        /// The task.
        task: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A continuation that has no tokens, or more than the model can see at once.
    #[error(
        "continuation {text:?} has {tokens} tokens, the model scores 1 to {max_length} at once; \
         shorten it or leave the document out"
    )]
    ContinuationLength {
        /// The first characters of the continuation.
        text: String,
        /// Its tokens.
        tokens: usize,
        /// The model's limit.
        max_length: usize,
    },

    /// The tokens to generate leave no room for the prompt.
    #[error(
        "task `{task}` generates up to {wanted} tokens, and the model takes {max_length} with the prompt; raise \
         --max-length or lower max_gen_toks"
    )]
    NoRoom {
        /// The task.
        task: String,
        /// Tokens to generate.
        wanted: usize,
        /// The model's limit.
        max_length: usize,
    },

    /// The model's answer to a document is not a number.
    #[error(
        "task `{task}`, document {index}: the model's scores are not finite; its weights or its arithmetic are broken: \
         try --dtype float32, and check the training run"
    )]
    NotANumber {
        /// The task.
        task: String,
        /// Which document, from 0.
        index: usize,
    },

    /// The model's answer to a request is not a number; [`EvalError::NotANumber`] says to which document.
    #[error("the model's scores are not finite (request {request})")]
    NotFinite {
        /// Which request of those that were made together, from 0.
        request: usize,
    },

    /// The model answered with another number of results than there were requests: a bug of the model's side.
    #[error("the model gave {answers} answers to {requests} requests; this is a bug, please report it")]
    AnswerCount {
        /// Requests made.
        requests: usize,
        /// Answers received.
        answers: usize,
    },

    /// The model failed.
    #[error("the model could not answer: {0}")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A document that the task's templates or functions cannot be used with.
#[derive(Debug, thiserror::Error)]
#[error(
    "task `{task}`, document {index} of split `{split}`: {problem}; compare the data's fields ({fields}) with `{key}` in \
     {place}"
)]
pub struct DocumentError {
    /// The task.
    pub task: String,
    /// The split.
    pub split: String,
    /// Which document, from 0.
    pub index: usize,
    /// The key of the task that is about it.
    pub key: String,
    /// Where the key stands.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// The document's fields.
    pub fields: String,
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}
