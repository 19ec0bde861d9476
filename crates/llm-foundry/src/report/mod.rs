//! `report.html`: what a run was, on one page that needs nothing but a browser.
//!
//! No script, no request: the page's own policy forbids both. Everything that comes from files is escaped.

mod chart;
mod curves;
mod folder;
mod html;
mod scale;
mod sections;

use crate::console::say;
use crate::failure::{Failure, Outcome};
use crate::history::Figure;
use crate::output_dir::write_whole;
use folder::Run;
use html::escaped;
use std::path::{Path, PathBuf};

/// Name of the file in a run's directory.
pub(crate) const REPORT: &str = "report.html";

const STYLE: &str = include_str!("style.css");
/// Begins every page, so that only pages are overwritten.
const MARK: &str = "<!doctype html>\n<!-- llm-foundry report -->\n";
/// More curves over each other nobody can tell apart: of more runs these many best ones are drawn.
const MOST_DRAWN: usize = 64;

/// Leaves the report in the directory of a run that has just ended, however it ended. A run is not worth less because
/// its report cannot be written.
pub(crate) fn leave(dir: &Path, quiet: bool) {
    tell_of_failure(Run::read(dir).and_then(|run| write(&dir.join(REPORT), &page(vec![run]))), quiet);
}

/// Leaves the report of several runs in `dir`; those that left no metrics are not in it.
pub(crate) fn leave_of_several(dir: &Path, runs: &[PathBuf], quiet: bool) {
    let mut runs: Vec<Run> = runs.iter().filter_map(|run| Run::read(run).ok()).collect();
    tell_apart(&mut runs);
    tell_of_failure(if runs.is_empty() { Ok(()) } else { write(&dir.join(REPORT), &page(runs)) }, quiet);
}

fn tell_of_failure(written: Outcome, quiet: bool) {
    if let Err(Failure::Input(why) | Failure::Run(why)) = written {
        say(quiet, format!("warning: no {REPORT}: {why}"));
    }
}

/// The page about these runs: one in detail, or several over each other.
pub(crate) fn of_runs(dirs: &[PathBuf]) -> Outcome<String> {
    let mut runs = dirs.iter().map(|dir| Run::read(dir)).collect::<Outcome<Vec<_>>>()?;
    tell_apart(&mut runs);
    Ok(page(runs))
}

/// Writes a page to a path where nothing is, or an earlier page.
pub(crate) fn write(path: &Path, page: &str) -> Outcome {
    let mut head = vec![0; MARK.len()];
    let begins_so = std::fs::File::open(path).is_ok_and(|mut file| {
        std::io::Read::read_exact(&mut file, &mut head).is_ok() && head == MARK.as_bytes()
    });
    if path.exists() && !begins_so {
        return Err(Failure::Input(format!(
            "{} is there and is no report; choose another place with -o",
            path.display()
        )));
    }
    write_whole(path, page)
}

/// Runs whose directories have the same name get their whole paths.
fn tell_apart(runs: &mut [Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.dir.display().to_string();
        }
    }
}

/// Puts the best run first, by the figure that is named then. Runs that have not ended come after those that have.
fn sort(runs: &mut [Run]) -> &'static str {
    let finished = runs.iter().filter(|run| run.is_done());
    let by = Figure::of(finished.map(|run| run.history.eval_loss()));
    let key = |run: &Run| {
        let figure = by.pick(run.history.eval_loss(), run.history.final_loss());
        (!run.is_done(), figure.unwrap_or(f64::INFINITY))
    };
    runs.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    if by == Figure::EvalLoss { "evaluation loss" } else { "loss" }
}

fn page(mut runs: Vec<Run>) -> String {
    let mut note = String::new();
    if runs.len() > MOST_DRAWN {
        let name = sort(&mut runs);
        note = format!(
            "{} runs, best {name} first. What follows the table is about the first {MOST_DRAWN} of them.",
            runs.len()
        );
    }
    let title = match runs.as_slice() {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let body = match runs.as_slice() {
        [run] => sections::of_one(run),
        runs => sections::of_several(runs, &runs[..runs.len().min(MOST_DRAWN)], &note),
    };
    format!(
        "{MARK}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <footer>Written by llm-foundry {version}.</footer>\n</body>\n</html>\n",
        title = escaped(&title),
        version = env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(root: &Path, name: &str, loss: f64) -> PathBuf {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).expect("made");
        let log = |step: u64| {
            format!("{{\"step\":{step},\"loss\":{},\"learning_rate\":1e-4}}\n", loss / step as f64)
        };
        let end = "{\"event\":\"run_end\",\"step\":3,\"total_steps\":3,\"tokens\":9,\"seconds\":3.0}\n";
        let metrics = format!("{}{}{}{end}", log(1), log(2), log(3));
        std::fs::write(dir.join("metrics.jsonl"), metrics).expect("written");
        dir
    }

    #[test]
    fn a_page_asks_nobody_for_anything_and_escapes_what_it_shows() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dir = run(root.path(), "<script>alert(1)</script>", 2.0);
        let evil = "<img src=x onerror=alert(1)>";
        std::fs::write(dir.join("config.resolved.yaml"), format!("model:\n  x: \"{evil}\"  # {evil}\n"))
            .expect("written");
        let samples = serde_json::json!({"step": 0, "prompt": evil, "text": "</pre></div>"});
        std::fs::write(dir.join("samples.jsonl"), format!("{samples}\n{{\"step\":")).expect("written");
        let data =
            serde_json::json!({"train": {"files": [{"file": evil, "examples": 1}], "warnings": [evil]}});
        std::fs::write(dir.join("data_report.json"), data.to_string()).expect("written");
        let task =
            serde_json::json!({"event": "task", "task": evil, "metric": evil, "step": 3, "value": 0.5});
        let metrics = std::fs::read_to_string(dir.join("metrics.jsonl")).expect("read");
        std::fs::write(dir.join("metrics.jsonl"), format!("{metrics}{task}\n")).expect("written");
        let page = of_runs(&[dir]).expect("a page");
        for bad in
            ["<script", "<img", "</pre></div></pre>", "http://", "https://", "url(", "@import", " src="]
        {
            assert!(!page.replace(&escaped(evil), "").contains(bad), "{bad} in {page}");
        }
        assert_eq!(page.matches("&lt;img src=x onerror=alert(1)&gt;").count(), 7, "{page}");
    }

    #[test]
    fn several_runs_are_drawn_over_each_other_and_told_apart() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs = [run(root.path(), "a/run", 2.0), run(root.path(), "b/run", 4.0)];
        std::fs::write(
            dirs[0].join("config.resolved.yaml"),
            "lora:\n  r: 8  # c.yaml:1\n  alpha: 1  # default\n",
        )
        .expect("written");
        std::fs::write(
            dirs[1].join("config.resolved.yaml"),
            "lora:\n  r: 16  # c.yaml:1\n  alpha: 1  # default\n",
        )
        .expect("written");
        let page = of_runs(&dirs).expect("a page");
        assert!(page.contains("a/run") && page.contains("b/run"), "{page}");
        assert!(page.contains("line c0") && page.contains("line c1"), "{page}");
        let differs = page
            .split("What differs")
            .nth(1)
            .and_then(|text| text.split("</table>").next())
            .expect("a table");
        assert!(
            differs.contains("lora.r") && differs.contains("16") && !differs.contains("alpha"),
            "{differs}"
        );
    }

    #[test]
    fn only_reports_are_overwritten() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let path = root.path().join("page.html");
        std::fs::write(&path, "precious").expect("written");
        let Err(Failure::Input(why)) = write(&path, MARK) else { panic!("overwritten") };
        assert!(why.contains("is no report"), "{why}");
        std::fs::remove_file(&path).expect("removed");
        write(&path, &format!("{MARK}1")).expect("new");
        write(&path, &format!("{MARK}2")).expect("replaced");
        assert!(std::fs::read_to_string(&path).expect("read").ends_with('2'));
        // Nor by a run that ends, or a sweep.
        let dir = run(root.path(), "mine", 2.0);
        std::fs::write(dir.join(REPORT), "precious").expect("written");
        leave(&dir, true);
        leave_of_several(&dir, std::slice::from_ref(&dir), true);
        assert_eq!(std::fs::read_to_string(dir.join(REPORT)).expect("read"), "precious");
    }

    /// As a sweep finds its best run: those that were stopped have no say, and come last.
    #[test]
    fn finished_runs_decide_what_runs_are_put_in_order_by() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs = [("stopped", 0.1), ("worse", 2.0), ("better", 4.0)].map(|(n, l)| run(root.path(), n, l));
        let rewrite = |dir: &Path, change: &dyn Fn(String) -> String| {
            let path = dir.join("metrics.jsonl");
            let text = change(std::fs::read_to_string(&path).expect("read"));
            std::fs::write(&path, text).expect("written");
        };
        rewrite(&dirs[0], &|text| text.replace("\"total_steps\"", "\"stopped\":true,\"total_steps\""));
        for (dir, loss) in [(&dirs[1], 3.0), (&dirs[2], 1.0)] {
            rewrite(dir, &|text| format!("{{\"event\":\"eval\",\"step\":3,\"eval_loss\":{loss}}}\n{text}"));
        }
        let mut runs: Vec<Run> = dirs.iter().map(|dir| Run::read(dir).expect("a run")).collect();
        assert_eq!(sort(&mut runs), "evaluation loss");
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        assert_eq!(names, ["better", "worse", "stopped"]);
    }

    #[test]
    fn of_many_runs_all_are_listed_and_the_best_are_drawn() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs: Vec<PathBuf> =
            (0..70).map(|n| run(root.path(), &format!("run{n:02}"), f64::from(170 - n))).collect();
        for page in [of_runs(&dirs).expect("a page"), {
            leave_of_several(root.path(), &dirs, true);
            std::fs::read_to_string(root.path().join(REPORT)).expect("left")
        }] {
            let (table, rest) = page.split_once("</table>").expect("a table");
            assert!((0..70).all(|n| table.contains(&format!("run{n:02}"))), "{table}");
            assert!(table.find("run69") < table.find("run00"), "best first");
            assert!(table.contains("70 runs, best loss first") && table.contains("first 64"), "{table}");
            assert!(rest.contains("run06") && !rest.contains("run05"), "the 64 best are drawn");
        }
    }
}
