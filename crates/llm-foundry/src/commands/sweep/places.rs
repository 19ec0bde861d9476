//! What keeps the runs of a sweep apart in trackers: a folder and a name for each, and never one identity for all.

use super::record::Run;
use crate::config::{Config, LONGEST_NAME, TrackerKind, yaml_scalar};
use std::path::Path;

/// What a run is started with besides its own overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) overrides: Vec<String>,
    /// Names and values for its environment.
    pub(super) variables: Vec<(String, String)>,
}

/// For each run. `variable` reads the environment of the sweep.
pub(super) fn places(
    runs: &[Run],
    configs: &[Config],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Places>, String> {
    let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let reports = |kind| move |config: &Config| config.training.report_to.names(kind);
    for (kind, name) in [(TrackerKind::Wandb, "WANDB_RUN_ID"), (TrackerKind::Mlflow, "MLFLOW_RUN_ID")] {
        if set(name).is_some() && configs.iter().any(reports(kind)) {
            return Err(format!(
                "{name} is set: it names one run, but this sweep has {}, which would write over each other\n  unset it",
                runs.len()
            ));
        }
    }
    let (folder, title) = (set("TENSORBOARD_LOGGING_DIR"), set("WANDB_NAME"));
    let of = |(run, config): (&Run, &Config)| {
        let mut places = Places::default();
        let training = &config.training;
        let alike = |same: &dyn Fn(&Config) -> bool| configs.iter().filter(|other| same(other)).count() > 1;
        match (&training.logging_dir, &folder) {
            (Some(dir), _) if alike(&|other| other.training.logging_dir.as_ref() == Some(dir)) => {
                places.overrides.push(format!("training.logging_dir={}", yaml_scalar(&below(dir, run))));
            }
            (None, Some(dir)) if reports(TrackerKind::Tensorboard)(config) => {
                places.variables.push(("TENSORBOARD_LOGGING_DIR".into(), below(dir, run)));
            }
            _ => {}
        }
        match (&training.run_name, &title) {
            (Some(name), _) if alike(&|other| other.training.run_name.as_ref() == Some(name)) => {
                places.overrides.push(format!("training.run_name={}", yaml_scalar(&named(name, run))));
            }
            (None, Some(name)) if reports(TrackerKind::Wandb)(config) => {
                places.variables.push(("WANDB_NAME".into(), named(name, run)));
            }
            _ => {}
        }
        places
    };
    Ok(runs.iter().zip(configs).map(of).collect())
}

fn below(dir: &str, run: &Run) -> String {
    Path::new(dir).join(&run.name).display().to_string()
}

/// The common name, and what tells the run from the others: its values, or its number where those are too long.
fn named(name: &str, run: &Run) -> String {
    let long = format!("{name}_{}", run.name);
    if long.chars().count() <= LONGEST_NAME {
        return long;
    }
    let number = run.number();
    let kept: String = name.chars().take(LONGEST_NAME - 1 - number.len()).collect();
    format!("{kept}_{number}")
}

#[cfg(test)]
mod tests {
    use super::super::combined;
    use super::*;

    /// Of a sweep over two seeds.
    fn of(more: &[&str], variables: &[(&str, &str)]) -> Result<Vec<Places>, String> {
        let overrides: Vec<String> =
            ["training.seed=1,2"].iter().chain(more).map(|s| (*s).to_owned()).collect();
        let (_, runs) = combined(&overrides).expect("a sweep");
        let file =
            "model: {name_or_path: m}\ndata: {train: a.jsonl}\ntraining: {report_to: all}\noutput_dir: o\n";
        let config = |run: &Run| {
            crate::config::from_text("c.yaml", file.into(), &run.overrides).expect("valid").config
        };
        let configs: Vec<Config> = runs.iter().map(config).collect();
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        places(&runs, &configs, &variable)
    }

    #[test]
    fn runs_have_folders_and_names_of_their_own() {
        let found = of(&["training.logging_dir=boards", "training.run_name=first try"], &[]).expect("fine");
        assert_eq!(
            found[1].overrides,
            ["training.logging_dir=\"boards/002_seed=2\"", "training.run_name=\"first try_002_seed=2\""]
        );
        let variables = [("TENSORBOARD_LOGGING_DIR", "/boards"), ("WANDB_NAME", "w")];
        let found = of(&[], &variables).expect("fine");
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            found[0].variables,
            [own("TENSORBOARD_LOGGING_DIR", "/boards/001_seed=1"), own("WANDB_NAME", "w_001_seed=1")]
        );
        // What the user keeps apart stays as it is.
        let apart = ["training.logging_dir='b/${training.seed}'", "training.run_name='s ${training.seed}'"];
        assert_eq!(of(&apart, &[]).expect("fine"), vec![Places::default(); 2]);
        assert_eq!(of(&[], &[("WANDB_RUN_ID", " ")]).expect("not set"), vec![Places::default(); 2]);
        let long = format!("training.run_name={}", "n".repeat(125));
        let found = of(&[&long], &[]).expect("fine");
        assert_eq!(found[0].overrides, [format!("training.run_name={}_001", "n".repeat(124))]);
    }

    #[test]
    fn one_identity_for_several_runs_is_refused() {
        for name in ["WANDB_RUN_ID", "MLFLOW_RUN_ID"] {
            let error = of(&[], &[(name, "abc")]).expect_err(name);
            assert!(error.contains(name) && error.contains("2"), "{error}");
            assert!(of(&["training.report_to=tensorboard"], &[(name, "abc")]).is_ok());
        }
    }
}
