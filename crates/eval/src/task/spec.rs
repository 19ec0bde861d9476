//! A task as its file describes it, checked: everything that lm_eval's `TaskConfig` has and that needs no Python.

use super::yaml::{Config, definition, foreign_function, function, names};
use crate::filter::Pipeline;
use crate::metrics::{Aggregation, MetricSpec};
use crate::native::Native;
use crate::template::Template;
use crate::{EvalError, Metric, TaskResult};
use serde_json::{Map, Value, json};

/// What a task asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputType {
    /// How likely one continuation is.
    LogLikelihood,
    /// How likely a whole text is.
    Rolling,
    /// Which of several continuations is the likeliest.
    MultipleChoice,
    /// Text.
    GenerateUntil,
}

impl OutputType {
    /// lm_eval's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLikelihood => "loglikelihood",
            Self::Rolling => "loglikelihood_rolling",
            Self::MultipleChoice => "multiple_choice",
            Self::GenerateUntil => "generate_until",
        }
    }
}

/// Where a value about a document comes from.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    /// A fixed value.
    Fixed(Value),
    /// The name of a column, or else a template.
    Text { source: String, template: Box<Template> },
    /// A built-in function.
    Native(Native),
}

/// How examples before a question are made.
#[derive(Debug, Clone)]
pub(crate) struct Fewshot {
    /// `first_n` instead of at random.
    pub(crate) is_first_n: bool,
    pub(crate) split: Option<String>,
    /// Examples of the task itself.
    pub(crate) samples: Option<Vec<Value>>,
    /// What is made of the documents of its split: the task's own function where it names none.
    pub(crate) process_docs: Option<Native>,
    pub(crate) doc_to_text: Field,
    pub(crate) doc_to_choice: Option<Field>,
    pub(crate) doc_to_target: Field,
    pub(crate) gen_prefix: Option<Field>,
    pub(crate) target_delimiter: String,
    pub(crate) fewshot_delimiter: String,
}

/// A task.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// Its name.
    pub name: String,
    /// Its name in tables.
    pub alias: String,
    /// Data set on the hub.
    pub dataset_path: String,
    /// Configuration of the data set.
    pub dataset_name: Option<String>,
    /// Arguments of `datasets.load_dataset`.
    pub dataset_kwargs: Map<String, Value>,
    /// What it asks of a model.
    pub output_type: OutputType,
    /// Examples before each question that the task asks for.
    pub num_fewshot: Option<usize>,
    pub(crate) training_split: Option<String>,
    pub(crate) validation_split: Option<String>,
    pub(crate) test_split: Option<String>,
    pub(crate) process_docs: Option<Native>,
    pub(crate) doc_to_text: Field,
    pub(crate) doc_to_target: Field,
    pub(crate) doc_to_choice: Option<Field>,
    pub(crate) process_results: Option<Native>,
    pub(crate) description: Option<Field>,
    pub(crate) gen_prefix: Option<Field>,
    pub(crate) target_delimiter: String,
    pub(crate) fewshot_delimiter: String,
    pub(crate) fewshot: Fewshot,
    pub(crate) generation_kwargs: Map<String, Value>,
    pub(crate) repeats: usize,
    pub(crate) metrics: Vec<MetricSpec>,
    pub(crate) pipelines: Vec<Pipeline>,
    pub(crate) version: Value,
    pub(crate) config: Config,
}

/// Keys that mean nothing to an evaluation, and those of the library.
const PASSIVE: [&str; 9] = [
    "tag",
    "group",
    "task_alias",
    "metadata",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "group_alias",
    "unsafe_code",
    "task",
];
const READ: [&str; 24] = [
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "process_docs",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "process_results",
    "description",
    "gen_prefix",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "num_fewshot",
    "metric_list",
    "output_type",
    "generation_kwargs",
    "repeats",
    "filter_list",
    "use_prompt",
];
const FEWSHOT_KEYS: [&str; 10] = [
    "sampler",
    "split",
    "process_docs",
    "samples",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "gen_prefix",
    "fewshot_delimiter",
    "target_delimiter",
];

impl TaskSpec {
    /// Reads a task's merged keys.
    pub(crate) fn read(name: &str, config: Config) -> Result<Self, EvalError> {
        let reader = Reader { name, config: &config };
        reader.check_keys()?;
        reader.check_functions()?;
        let output_type = reader.output_type()?;
        let text = |key: &str| config.text(key);
        let fewshot_delimiter = text("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".into());
        let target_delimiter = text("target_delimiter")?.unwrap_or_else(|| " ".into());
        let doc_to_text = reader.field("doc_to_text")?.unwrap_or(Field::Fixed("".into()));
        let doc_to_target = reader.field("doc_to_target")?.unwrap_or(Field::Fixed("".into()));
        let doc_to_choice = reader.field("doc_to_choice")?;
        if output_type == OutputType::MultipleChoice && doc_to_choice.is_none() {
            return Err(definition(
                config.place("output_type"),
                "a multiple_choice task without `doc_to_choice`".into(),
                "add `doc_to_choice`: a list, the name of a column, or a template that prints a list".into(),
            ));
        }
        let gen_prefix = reader.field("gen_prefix")?;
        let fewshot = Fewshot {
            is_first_n: false,
            split: text("fewshot_split")?,
            samples: None,
            process_docs: reader.native("process_docs")?,
            doc_to_text: doc_to_text.clone(),
            doc_to_choice: doc_to_choice.clone(),
            doc_to_target: doc_to_target.clone(),
            gen_prefix: gen_prefix.clone(),
            target_delimiter: target_delimiter.clone(),
            fewshot_delimiter: fewshot_delimiter.clone(),
        };
        let process_results = reader.native("process_results")?;
        let repeats = reader.count("repeats")?.unwrap_or(1).max(1);
        let metadata = config.fields.get("metadata").and_then(Value::as_object);
        Ok(Self {
            name: name.to_owned(),
            alias: text("task_alias")?.unwrap_or_else(|| name.to_owned()),
            dataset_path: text("dataset_path")?.unwrap_or_default(),
            dataset_name: text("dataset_name")?,
            dataset_kwargs: reader.map("dataset_kwargs")?,
            output_type,
            num_fewshot: reader.count("num_fewshot")?,
            training_split: text("training_split")?,
            validation_split: text("validation_split")?,
            test_split: text("test_split")?,
            process_docs: reader.native("process_docs")?,
            process_results,
            description: reader.field("description")?,
            fewshot: reader.fewshot(fewshot)?,
            generation_kwargs: reader.generation_kwargs(&fewshot_delimiter)?,
            repeats,
            metrics: MetricSpec::list(&config, output_type, process_results)?,
            pipelines: Pipeline::list(&config, output_type, repeats)?,
            version: metadata.and_then(|m| m.get("version")).cloned().unwrap_or_else(|| "Yaml".into()),
            doc_to_text,
            doc_to_target,
            doc_to_choice,
            gen_prefix,
            target_delimiter,
            fewshot_delimiter,
            config,
        })
    }

    /// The split whose documents are asked.
    pub fn evaluated_split(&self) -> Option<&str> {
        self.test_split.as_deref().or(self.validation_split.as_deref())
    }

    /// The split that examples are drawn from, if not the task's own.
    pub(crate) fn example_split(&self) -> Option<&str> {
        let fewshot = &self.fewshot;
        match (&fewshot.split, &fewshot.samples) {
            (Some(split), _) => Some(split),
            (None, Some(_)) => None,
            (None, None) => {
                let rest = [&self.training_split, &self.validation_split, &self.test_split];
                rest.into_iter().flatten().next().map(String::as_str)
            }
        }
    }

    /// A key of the task's file that is a text, or nothing.
    pub(crate) fn config_text(&self, key: &str) -> String {
        self.config.text(key).ok().flatten().unwrap_or_default()
    }

    /// Results without numbers: what they are called.
    pub(crate) fn without_results(&self) -> TaskResult {
        let of = |filter: &str| {
            let metric = |metric: &MetricSpec| Metric {
                name: metric.name.clone(),
                filter: filter.to_owned(),
                value: f64::NAN,
                stderr: None,
                higher_is_better: metric.higher_is_better,
            };
            self.metrics.iter().map(metric).collect::<Vec<_>>()
        };
        TaskResult {
            task: self.name.clone(),
            alias: self.alias.clone(),
            version: self.version.clone(),
            num_fewshot: self.num_fewshot.unwrap_or(0),
            samples: 1,
            original: 0,
            truncated: 0,
            unanswerable: 0,
            metrics: self.pipelines.iter().flat_map(|pipeline| of(&pipeline.name)).collect(),
            logged: Vec::new(),
            config: Value::Null,
        }
    }

    /// Where a key of the task stands.
    pub(crate) fn place(&self, key: &str) -> String {
        self.config.place(key)
    }

    /// Names of the built-in functions that stand for the task's Python ones.
    pub fn natives(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = [self.process_docs, self.process_results]
            .into_iter()
            .flatten()
            .chain(
                [&self.doc_to_text, &self.doc_to_target].into_iter().chain(&self.doc_to_choice).filter_map(
                    |field| match field {
                        Field::Native(native) => Some(*native),
                        _ => None,
                    },
                ),
            )
            .map(Native::name)
            .collect();
        names.dedup();
        names
    }

    /// The task as lm_eval's `configs` shows it, run with `num_fewshot` examples.
    pub(crate) fn dump(&self, num_fewshot: usize) -> Value {
        let fields = &self.config.fields;
        let mut dump = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                dump.insert(key.into(), readable(value));
            }
        };
        let given = |key: &str| fields.get(key).cloned().unwrap_or(Value::Null);
        put("task", self.name.clone().into());
        for key in ["task_alias", "dataset_path", "dataset_name", "dataset_kwargs"] {
            put(key, given(key));
        }
        for key in ["training_split", "validation_split", "test_split", "fewshot_split", "process_docs"] {
            put(key, given(key));
        }
        for key in ["doc_to_text", "doc_to_target"] {
            put(key, given(key));
        }
        put("unsafe_code", false.into());
        put("doc_to_choice", given("doc_to_choice"));
        put("process_results", given("process_results"));
        put("description", fields.get("description").cloned().unwrap_or_else(|| "".into()));
        put("target_delimiter", self.target_delimiter.clone().into());
        put("fewshot_delimiter", self.fewshot_delimiter.clone().into());
        put("fewshot_config", self.fewshot_dump());
        put("num_fewshot", num_fewshot.into());
        put("metric_list", given("metric_list"));
        put("output_type", self.output_type.name().into());
        if self.output_type == OutputType::GenerateUntil {
            put("generation_kwargs", self.generation_kwargs.clone().into());
        }
        put("repeats", self.repeats.into());
        put("filter_list", given("filter_list"));
        put("should_decontaminate", fields.get("should_decontaminate").cloned().unwrap_or(false.into()));
        put("doc_to_decontamination_query", given("doc_to_decontamination_query"));
        put("gen_prefix", given("gen_prefix"));
        let mut metadata = given("metadata").as_object().cloned().unwrap_or_default();
        metadata.insert("config_source".into(), self.config.path.display().to_string().into());
        put("metadata", metadata.into());
        Value::Object(dump)
    }

    fn fewshot_dump(&self) -> Value {
        let fields = &self.config.fields;
        let own = fields.get("fewshot_config").and_then(Value::as_object);
        let value = |key: &str, outer: &str| {
            let inner = own.and_then(|own| own.get(key)).or_else(|| fields.get(outer));
            inner.cloned().unwrap_or(Value::Null)
        };
        json!({
            "sampler": if self.fewshot.is_first_n { "first_n" } else { "default" },
            "split": self.fewshot.split,
            "process_docs": value("process_docs", "process_docs"),
            "fewshot_indices": null,
            "samples": self.fewshot.samples,
            "doc_to_text": value("doc_to_text", "doc_to_text"),
            "doc_to_choice": value("doc_to_choice", "doc_to_choice"),
            "doc_to_target": value("doc_to_target", "doc_to_target"),
            "gen_prefix": value("gen_prefix", "gen_prefix"),
            "fewshot_delimiter": self.fewshot.fewshot_delimiter,
            "target_delimiter": self.fewshot.target_delimiter,
        })
    }
}

/// Function values by their names.
fn readable(value: Value) -> Value {
    match function(&value) {
        Some(name) => format!("!function {name}").into(),
        None => match value {
            Value::Array(items) => items.into_iter().map(readable).collect(),
            Value::Object(fields) => fields.into_iter().map(|(key, item)| (key, readable(item))).collect(),
            other => other,
        },
    }
}

/// Reads keys with errors that name the task and the place.
struct Reader<'a> {
    name: &'a str,
    config: &'a Config,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.config.fields.get(key).filter(|value| !value.is_null())
    }

    fn check_keys(&self) -> Result<(), EvalError> {
        if let Some(class) = self.get("class") {
            return Err(self.needs_python("class", function(class).unwrap_or("class")));
        }
        if let Some(custom) = self.get("custom_dataset") {
            return Err(self.needs_python("custom_dataset", function(custom).unwrap_or("custom_dataset")));
        }
        for (key, value) in &self.config.fields {
            let refused = match key.as_str() {
                "doc_to_image" | "doc_to_audio" => "pictures and sound are not supported",
                "use_prompt" => "prompts of promptsource are not supported",
                "unsafe_code" if *value == Value::Bool(true) => "running generated code is not supported",
                key if PASSIVE.contains(&key) || READ.contains(&key) => continue,
                _ => "no such key of a task",
            };
            if !value.is_null() {
                return Err(definition(
                    self.config.place(key),
                    format!("`{key}` of task `{}`: {refused}", self.name),
                    "take it away if the task does without it".into(),
                ));
            }
        }
        Ok(())
    }

    /// A function that is not built in is said before anything else is wrong: what a task's Python takes care of need
    /// not make sense here.
    fn check_functions(&self) -> Result<(), EvalError> {
        let path = &self.config.path;
        let built_in =
            |name: &str| Native::find(path, name).is_some() || Aggregation::native(path, name).is_some();
        for (key, value) in self.config.fields.iter().filter(|(key, _)| READ.contains(&key.as_str())) {
            if let Some(function) = foreign_function(value, &built_in) {
                return Err(self.needs_python(key, function));
            }
        }
        Ok(())
    }

    fn needs_python(&self, key: &str, function: &str) -> EvalError {
        EvalError::NeedsPython {
            task: self.name.into(),
            place: self.config.place(key),
            key: key.into(),
            function: function.into(),
        }
    }

    fn output_type(&self) -> Result<OutputType, EvalError> {
        match self.get("output_type").map(|value| value.as_str().unwrap_or_default()) {
            None | Some("generate_until") => Ok(OutputType::GenerateUntil),
            Some("loglikelihood") => Ok(OutputType::LogLikelihood),
            Some("loglikelihood_rolling") => Ok(OutputType::Rolling),
            Some("multiple_choice") => Ok(OutputType::MultipleChoice),
            Some(_) => Err(self.config.wrong(
                "output_type",
                &self.config.fields["output_type"],
                "loglikelihood, loglikelihood_rolling, multiple_choice or generate_until",
            )),
        }
    }

    fn count(&self, key: &str) -> Result<Option<usize>, EvalError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count =
            value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|&count| count <= 10_000);
        count.map(Some).ok_or_else(|| self.config.wrong(key, value, "a whole number, 0 to 10000"))
    }

    fn map(&self, key: &str) -> Result<Map<String, Value>, EvalError> {
        match self.get(key) {
            None => Ok(Map::new()),
            Some(Value::Object(fields)) => Ok(fields.clone()),
            Some(other) => Err(self.config.wrong(key, other, "keys and values")),
        }
    }

    /// A function that must be built in.
    fn native(&self, key: &str) -> Result<Option<Native>, EvalError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(function) = function(value) else {
            return Err(self.config.wrong(key, value, "a function (!function module.name)"));
        };
        match Native::find(&self.config.path, function) {
            Some(native) => Ok(Some(native)),
            None => Err(self.needs_python(key, function)),
        }
    }

    fn field(&self, key: &str) -> Result<Option<Field>, EvalError> {
        self.get(key).map(|value| self.field_of(key, value)).transpose()
    }

    fn field_of(&self, key: &str, value: &Value) -> Result<Field, EvalError> {
        if let Some(function) = function(value) {
            let native = Native::find(&self.config.path, function);
            return native.map(Field::Native).ok_or_else(|| self.needs_python(key, function));
        }
        Ok(match value {
            Value::String(source) => {
                let template = Template::compile(source).map_err(|message| EvalError::Template {
                    place: self.config.place(key),
                    key: key.into(),
                    message,
                })?;
                Field::Text { source: source.clone(), template: Box::new(template) }
            }
            // doc_to_choice: the values of a dict are the choices.
            Value::Object(fields) => Field::Fixed(fields.values().cloned().collect()),
            other => Field::Fixed(other.clone()),
        })
    }

    fn fewshot(&self, mut fewshot: Fewshot) -> Result<Fewshot, EvalError> {
        let own = self.map("fewshot_config")?;
        let place = self.config.place("fewshot_config");
        let wrong = |problem: String, remedy: &str| Err(definition(place.clone(), problem, remedy.into()));
        if let Some(key) = own.keys().find(|key| !FEWSHOT_KEYS.contains(&key.as_str())) {
            return wrong(
                format!("`fewshot_config.{key}` is not supported"),
                "lm_eval 0.4.13 does not read it either",
            );
        }
        let text = |key: &str| own.get(key).and_then(Value::as_str).map(str::to_owned);
        match own.get("sampler").and_then(Value::as_str) {
            None | Some("default") => {}
            Some("first_n") => fewshot.is_first_n = true,
            Some(other) => {
                return wrong(
                    format!("`fewshot_config.sampler` is {other:?}"),
                    "it must be default or first_n",
                );
            }
        }
        if own.contains_key("split") {
            fewshot.split = text("split");
        }
        if let Some(process) = own.get("process_docs").filter(|value| !value.is_null()) {
            let name = function(process).unwrap_or("process_docs");
            let native = Native::find(&self.config.path, name);
            let native = native.ok_or_else(|| self.needs_python("fewshot_config.process_docs", name))?;
            fewshot.process_docs = Some(native);
        }
        match own.get("samples").filter(|value| !value.is_null()) {
            None => {}
            Some(Value::Array(samples)) => fewshot.samples = Some(samples.clone()),
            Some(other) => {
                let name = function(other).unwrap_or("samples");
                return Err(self.needs_python("fewshot_config.samples", name));
            }
        }
        for (key, field) in
            [("doc_to_text", &mut fewshot.doc_to_text), ("doc_to_target", &mut fewshot.doc_to_target)]
        {
            if let Some(value) = own.get(key) {
                *field = self.field_of(key, value)?;
            }
        }
        for (key, field) in
            [("doc_to_choice", &mut fewshot.doc_to_choice), ("gen_prefix", &mut fewshot.gen_prefix)]
        {
            if let Some(value) = own.get(key) {
                *field = if value.is_null() { None } else { Some(self.field_of(key, value)?) };
            }
        }
        fewshot.target_delimiter = text("target_delimiter").unwrap_or(fewshot.target_delimiter);
        fewshot.fewshot_delimiter = text("fewshot_delimiter").unwrap_or(fewshot.fewshot_delimiter);
        Ok(fewshot)
    }

    fn generation_kwargs(&self, fewshot_delimiter: &str) -> Result<Map<String, Value>, EvalError> {
        let mut kwargs = self.map("generation_kwargs")?;
        if self.get("generation_kwargs").is_none() {
            kwargs.insert("temperature".into(), 0.0.into());
            kwargs.insert("do_sample".into(), false.into());
            kwargs.insert("max_gen_toks".into(), 256.into());
        }
        if !kwargs.contains_key("until") {
            kwargs.insert("until".into(), json!([fewshot_delimiter]));
        }
        if let Some(temperature) = kwargs.get_mut("temperature")
            && let Some(number) = temperature.as_f64()
        {
            *temperature = number.into();
        }
        let known = names(kwargs.get("until")).len();
        let listed = kwargs["until"].as_array().map_or(1, Vec::len);
        if known != listed {
            return Err(self.config.wrong("generation_kwargs", &kwargs["until"], "`until`: texts"));
        }
        Ok(kwargs)
    }
}
