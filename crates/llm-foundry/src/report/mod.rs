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
use crate::output_dir::write_whole;
use folder::Run;
use html::escaped;
use std::path::{Path, PathBuf};

/// Name of the file in a run's directory.
pub(crate) const REPORT: &str = "report.html";

const STYLE: &str = include_str!("style.css");
/// Begins every page, so that only pages are overwritten.
const MARK: &str = "<!doctype html>\n<!-- llm-foundry report -->\n";
/// No two pages of a run need more.
const MOST_RUNS: usize = 64;

/// Leaves the report in the directory of a run that has just ended, however it ended. A run is not worth less because
/// its report cannot be written.
pub(crate) fn leave(dir: &Path, quiet: bool) {
    let written = Run::read(dir).and_then(|run| write_whole(&dir.join(REPORT), &page(&[run])));
    if let Err(Failure::Input(why) | Failure::Run(why)) = written {
        say(quiet, format!("warning: no {REPORT}: {why}"));
    }
}

/// Leaves the report of several runs in `dir`; those that left no metrics are not in it.
pub(crate) fn leave_of_several(dir: &Path, runs: &[PathBuf], quiet: bool) {
    let mut runs: Vec<Run> = runs.iter().filter_map(|run| Run::read(run).ok()).take(MOST_RUNS).collect();
    tell_apart(&mut runs);
    let written = if runs.is_empty() { Ok(()) } else { write_whole(&dir.join(REPORT), &page(&runs)) };
    if let Err(Failure::Input(why) | Failure::Run(why)) = written {
        say(quiet, format!("warning: no {REPORT}: {why}"));
    }
}

/// The page about these runs: one in detail, or several over each other.
pub(crate) fn of_runs(dirs: &[PathBuf]) -> Outcome<String> {
    if dirs.len() > MOST_RUNS {
        return Err(Failure::Input(format!(
            "{} runs: at most {MOST_RUNS} are drawn over each other",
            dirs.len()
        )));
    }
    let mut runs = dirs.iter().map(|dir| Run::read(dir)).collect::<Outcome<Vec<_>>>()?;
    tell_apart(&mut runs);
    Ok(page(&runs))
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

fn page(runs: &[Run]) -> String {
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let body = match runs {
        [run] => sections::of_one(run),
        runs => sections::of_several(runs),
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
    }
}
