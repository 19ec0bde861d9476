//! `llm-foundry push`: an adapter or a model goes to the hub.

use crate::checkpoint_dir;
use crate::cli::PushArgs;
use crate::failure::{Failure, Outcome};
use std::path::{Path, PathBuf};

/// Files of a run that are nobody else's business: paths of this machine, and what only a resume needs.
const OWN: &[&str] = &[
    "config.resolved.yaml",
    "metrics.jsonl",
    "optimizer.safetensors",
    "parameters.safetensors",
    "trainer_state.json",
    "manifest.json",
    "report.html",
    "data_report.json",
    "samples.jsonl",
    "sweep.json",
];

/// A file that would be uploaded: path, name, bytes.
type Chosen = (PathBuf, String, u64);

/// Uploads a directory.
pub(crate) fn run(args: &PushArgs, quiet: bool) -> Outcome {
    if !crate::hub::is_hub_id(&args.repo) {
        return Err(Failure::Input(format!(
            "`{}` is no name of a repository: write org/name or name, of letters, digits, `-`, `_` and `.`",
            args.repo
        )));
    }
    let files = choose(&args.dir)?;
    checkpoint_dir::check(&args.dir)?;
    if files.iter().any(|(path, name, _)| name == "README.md" && tells_a_configuration(path)) {
        let note = "note: README.md shows the command and the configuration, paths from the root or the home directory by \
                    their last part; it goes with the rest: look at it first";
        crate::console::say(quiet, note);
    }
    if let Some(base) = local_base(&args.dir) {
        let note = format!(
            "note: adapter_config.json names its base model by a path of this machine, {base}; put the hub id there for \
             others to find it"
        );
        crate::console::say(quiet, note);
    }
    if args.dry_run {
        for (_, name, bytes) in &files {
            anstream::println!("{name} ({})", crate::console::bytes(*bytes));
        }
        return Ok(());
    }
    upload(args, files, quiet)
}

#[cfg(feature = "hub")]
fn upload(args: &PushArgs, files: Vec<Chosen>, quiet: bool) -> Outcome {
    use crate::hub::{HubSettings, PushError, Target, Upload, Uploader};
    let settings = HubSettings::from_env(|variable| std::env::var(variable).ok());
    let failed = |error: PushError| {
        let world = error.is_of_the_world();
        if world { Failure::run(error) } else { Failure::input(error) }
    };
    let say = |line: String| crate::console::say(quiet, line);
    let uploader = Uploader::new(&settings, &say).map_err(failed)?;
    let target = Target {
        repo: args.repo.clone(),
        revision: args.revision.clone(),
        private: args.private,
        message: args.message.clone(),
    };
    let files: Vec<Upload> =
        files.into_iter().map(|(path, name, bytes)| Upload { path, name, bytes }).collect();
    let url = uploader.push(&target, &files).map_err(failed)?;
    anstream::println!("{url}");
    Ok(())
}

#[cfg(not(feature = "hub"))]
fn upload(_: &PushArgs, _: Vec<Chosen>, _: bool) -> Outcome {
    let message = "this program was built without the feature `hub`; build with it to push";
    Err(Failure::Input(message.into()))
}

/// A model card that a run wrote.
fn tells_a_configuration(card: &Path) -> bool {
    std::fs::read_to_string(card).is_ok_and(|text| text.contains(crate::card::CONFIGURATION))
}

/// The base of an adapter, where its name is a path that nobody else has.
fn local_base(dir: &Path) -> Option<String> {
    let config = std::fs::read(dir.join("adapter_config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
    let base = config.get("base_model_name_or_path")?.as_str()?;
    let is_name = crate::hub::is_hub_id(base) && !Path::new(base).exists();
    (!base.is_empty() && !is_name).then(|| base.to_owned())
}

/// The files of a model or adapter in `dir`, without those of the run itself.
fn choose(dir: &Path) -> Outcome<Vec<Chosen>> {
    let at = |e: std::io::Error| Failure::io("list", dir, &e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metadata = std::fs::metadata(&path).map_err(|e| Failure::io("read", &path, &e))?;
        if metadata.is_file() && !name.starts_with('.') && !OWN.contains(&name.as_str()) {
            files.push((path, name, metadata.len()));
        }
    }
    files.sort();
    let is_weights = |name: &str| name.ends_with(".safetensors") || name.ends_with(".gguf");
    if !files.iter().any(|(_, name, _)| is_weights(name)) {
        return Err(Failure::Input(format!(
            "{}: there is no model and no adapter here (.safetensors or .gguf): name the output directory of a finished \
             run, or of merge or export",
            dir.display()
        )));
    }
    Ok(files)
}
