//! `OUTPUT_DIR/metrics.jsonl`: one JSON object per logged step, and events (`run_start`, `resume`, `eval`, `task`,
//! `save`, `run_end`) that carry an `event` field. Every line has a `step`.

use super::{Callback, Flow, Snapshot};
use crate::error::EngineError;
use crate::report::{EvalReport, LogRecord, SaveReport, StartReport, Summary, TaskReport};
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the file.
pub const METRICS: &str = "metrics.jsonl";

/// Writes the metrics file, one write for each line, so that a killed run leaves at most one torn line.
pub struct MetricsJsonl {
    path: PathBuf,
    file: Option<File>,
    copy: Option<Box<dyn Write>>,
}

impl MetricsJsonl {
    /// Metrics of a run with this output directory. A new run replaces the file; a resumed one cuts it after the
    /// resumed step and goes on.
    pub fn new(output_dir: &Path) -> Self {
        Self { path: output_dir.join(METRICS), file: None, copy: None }
    }

    /// Every new line is also written to `copy`, as far as it takes them.
    pub fn with_copy(mut self, copy: Box<dyn Write>) -> Self {
        self.copy = Some(copy);
        self
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> EngineError {
        let path = self.path.clone();
        move |source| EngineError::Metrics { path, action, source }
    }

    fn write(&mut self, line: &Value) -> Result<(), EngineError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = format!("{line}\n");
        // Whoever reads the copy may have seen enough; that is no reason to end the run.
        if self
            .copy
            .as_mut()
            .is_some_and(|copy| copy.write_all(line.as_bytes()).and_then(|()| copy.flush()).is_err())
        {
            self.copy = None;
        }
        let result = file.write_all(line.as_bytes());
        result.map_err(self.failed("write"))
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.file.as_ref().map_or(Ok(()), File::sync_all).map_err(self.failed("flush"))
    }

    fn event(&mut self, event: &str, fields: Value) -> Result<(), EngineError> {
        let mut line = Map::from_iter([("event".to_owned(), Value::from(event))]);
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        self.write(&Value::Object(line))
    }
}

/// What is made for the step that a run goes on from, perhaps anew.
#[derive(Clone, Copy, Default)]
struct Owed {
    evaluation: bool,
    examination: bool,
}

/// The lines up to `step`: everything before the first line that is later, torn or no JSON object with a step. If the
/// evaluation or examination of `step` is still `owed`, one that an earlier attempt made goes too.
fn kept(text: &str, step: u64, owed: Owed) -> &str {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let whole = line.ends_with('\n');
        let object = serde_json::from_str::<Value>(line).ok().filter(|_| whole);
        let Some((at, object)) = object.and_then(|line| Some((line.get("step")?.as_u64()?, line))) else {
            break;
        };
        let event = &object["event"];
        let is_owed = (owed.evaluation && event == "eval") || (owed.examination && event == "task");
        if at > step || (at == step && is_owed) {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

/// Cuts the file after `step`, by way of a second file: a crash meanwhile loses nothing.
fn cut(path: &Path, step: u64, owed: Owed) -> io::Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // A torn write may end within a character.
    let text = String::from_utf8_lossy(&bytes);
    let kept = kept(&text, step, owed);
    let temporary = path.with_extension("jsonl.partial");
    let mut file = File::create(&temporary)?;
    file.write_all(kept.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

impl Callback for MetricsJsonl {
    fn on_start(&mut self, report: &StartReport) -> Result<(), EngineError> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).map_err(self.failed("create the directory of"))?;
        }
        let mut options = OpenOptions::new();
        options.create(true);
        if report.resumed_from.is_some() {
            let owed = Owed { evaluation: report.owes_evaluation, examination: report.owes_examination };
            cut(&self.path, report.step, owed).map_err(self.failed("cut"))?;
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        self.file = Some(options.open(&self.path).map_err(self.failed("open"))?);
        let mut fields = json!({
            "step": report.step,
            "total_steps": report.total_steps,
            "steps_per_epoch": report.steps_per_epoch,
            "world_size": report.world_size,
            "trainable_parameters": report.trainable_parameters,
            "backend": report.backend,
        });
        let Some(from) = &report.resumed_from else { return self.event("run_start", fields) };
        fields["checkpoint"] = Value::from(from.file_name().unwrap_or_default().to_string_lossy());
        let changed = report.changed.iter().map(|d| json!({"key": d.key, "was": d.checkpoint, "is": d.now}));
        fields["changed"] = changed.collect();
        self.event("resume", fields)
    }

    fn on_log(&mut self, record: &mut LogRecord) -> Result<(), EngineError> {
        self.write(&serde_json::to_value(&*record).expect("records are plain data"))
    }

    fn on_evaluate(&mut self, report: &EvalReport) -> Result<Flow, EngineError> {
        self.event("eval", serde_json::to_value(report).expect("reports are plain data"))?;
        Ok(Flow::Continue)
    }

    fn on_task(&mut self, report: &TaskReport) -> Result<(), EngineError> {
        self.event("task", serde_json::to_value(report).expect("reports are plain data"))
    }

    /// What a checkpoint stands for is on disk before the checkpoint is.
    fn on_save_due(&mut self, _snapshot: &Snapshot<'_>) -> Result<(), EngineError> {
        self.sync()
    }

    fn on_save(&mut self, report: &SaveReport) -> Result<(), EngineError> {
        let name = report.path.file_name().unwrap_or_default().to_string_lossy();
        let (seconds, blocked) = (report.seconds, report.blocked_seconds);
        let fields =
            json!({"step": report.step, "checkpoint": name, "seconds": seconds, "blocked_seconds": blocked});
        self.event("save", fields)
    }

    fn on_end(&mut self, summary: &Summary) -> Result<(), EngineError> {
        self.event("run_end", serde_json::to_value(summary).expect("summaries are plain data"))?;
        self.sync()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::StepReport;

    /// A line of the log.
    pub(crate) fn record(step: u64) -> LogRecord {
        LogRecord {
            step,
            epoch: step as f64 / 10.0,
            loss: 2.5,
            grad_norm: 0.5,
            learning_rate: 1e-4,
            tokens: step * 100,
            tokens_per_second: None,
            mean_token_accuracy: 0.25,
            entropy: 1.5,
            peak_rss_bytes: None,
            seconds: 1.0,
            data_seconds: 0.0,
            profile: Default::default(),
        }
    }

    /// A step.
    pub(crate) fn step(step: u64) -> StepReport {
        StepReport {
            step,
            total_steps: 10,
            epoch: step as f64 / 10.0,
            loss: 2.5,
            grad_norm: 0.5,
            learning_rate: 1e-4,
            tokens: 100,
            labelled_tokens: 50,
            seconds: 1.0,
            data_seconds: 0.0,
        }
    }

    fn start(step: u64, resumed: bool) -> StartReport {
        StartReport {
            step,
            total_steps: 10,
            steps_per_epoch: 5,
            world_size: 1,
            trainable_parameters: 3,
            backend: "reference".into(),
            resumed_from: resumed.then(|| PathBuf::from("out/checkpoint-2")),
            owes_evaluation: false,
            owes_examination: false,
            changed: Vec::new(),
        }
    }

    fn lines(dir: &Path) -> Vec<Value> {
        let text = fs::read_to_string(dir.join(METRICS)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_logged_step_has_the_promised_keys() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = MetricsJsonl::new(&dir.path().join("new"));
        metrics.on_start(&start(0, false)).unwrap();
        metrics.on_log(&mut record(1)).unwrap();
        let lines = lines(&dir.path().join("new"));
        assert_eq!(lines[0]["event"], "run_start");
        let keys: Vec<&str> = lines[1].as_object().unwrap().keys().map(String::as_str).collect();
        let promised = [
            "step",
            "epoch",
            "loss",
            "grad_norm",
            "learning_rate",
            "tokens",
            "tokens_per_second",
            "mean_token_accuracy",
            "entropy",
            "peak_rss_bytes",
            "seconds",
            "data_seconds",
        ];
        assert_eq!(keys, promised, "and no event key");
    }

    #[test]
    fn a_resumed_run_cuts_what_comes_after_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = MetricsJsonl::new(dir.path());
        metrics.on_start(&start(0, false)).unwrap();
        for step in 1..=4 {
            metrics.on_log(&mut record(step)).unwrap();
        }
        drop(metrics);
        let mut metrics = MetricsJsonl::new(dir.path());
        metrics.on_start(&start(2, true)).unwrap();
        metrics.on_log(&mut record(3)).unwrap();
        let found: Vec<(Value, Value)> =
            lines(dir.path()).iter().map(|line| (line["event"].clone(), line["step"].clone())).collect();
        let none = Value::Null;
        let expected = [
            (json!("run_start"), json!(0)),
            (none.clone(), json!(1)),
            (none.clone(), json!(2)),
            (json!("resume"), json!(2)),
            (none, json!(3)),
        ];
        assert_eq!(found, expected);
        assert_eq!(lines(dir.path())[3]["checkpoint"], "checkpoint-2");
    }

    #[test]
    fn a_torn_last_line_goes() {
        let whole = "{\"step\":1}\n{\"event\":\"eval\",\"step\":2}\n";
        for torn in ["{\"step\":3", "{\"step\":3}", "{\"st", "\0\0\0\n", "3\n", ""] {
            assert_eq!(kept(&format!("{whole}{torn}"), 9, Owed::default()), whole, "{torn:?}");
        }
        assert_eq!(kept(whole, 1, Owed::default()), "{\"step\":1}\n");
        assert_eq!(kept(whole, 0, Owed::default()), "");
        let evaluation = Owed { evaluation: true, examination: false };
        assert_eq!(kept(whole, 2, evaluation), "{\"step\":1}\n", "that evaluation is made again");
        let examined =
            format!("{whole}{{\"event\":\"task\",\"step\":2}}\n{{\"event\":\"task\",\"step\":2}}\n");
        let examination = Owed { evaluation: false, examination: true };
        assert_eq!(kept(&examined, 2, examination), whole, "those benchmarks are run again");
        assert_eq!(kept(&examined, 2, Owed::default()), examined);
        assert_eq!(kept(&examined, 3, examination), examined, "of an earlier step");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(METRICS), [whole.as_bytes(), b"{\"event\":\"\xc3"].concat()).unwrap();
        cut(&dir.path().join(METRICS), 5, Owed::default()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(METRICS)).unwrap(), whole);
        cut(&dir.path().join("absent.jsonl"), 5, Owed::default()).unwrap();
    }

    #[test]
    fn a_new_run_replaces_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(METRICS), "{\"step\":7}\n").unwrap();
        MetricsJsonl::new(dir.path()).on_start(&start(0, false)).unwrap();
        assert_eq!(lines(dir.path()).len(), 1);
    }

    #[test]
    fn an_unwritable_place_is_a_metrics_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = MetricsJsonl::new(&dir.path().join("file")).on_start(&start(0, false)).unwrap_err();
        assert!(matches!(error, EngineError::Metrics { .. }), "{error}");
    }
}
