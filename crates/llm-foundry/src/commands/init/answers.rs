//! What a configuration is made for: given by options, or asked for on a terminal.

use crate::cli::InitArgs;
use crate::failure::{Failure, Outcome};
use crate::hub::is_hub_id;
use crate::model_source::expand_home;
use dialoguer::{Input, Select};
use std::io::IsTerminal;

/// What is proposed where somebody just wants to try.
const SMALL_MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Which weights are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Method {
    Lora,
    Qlora,
    Full,
}

/// All that must be known.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) model: String,
    pub(super) data: Vec<String>,
    pub(super) eval: Option<String>,
    /// `None`: whatever fits.
    pub(super) method: Option<Method>,
    pub(super) output_dir: String,
}

impl Answers {
    /// Takes what the options say and asks for the rest, where there is somebody to ask.
    pub(super) fn complete(args: &InitArgs) -> Outcome<Self> {
        let name =
            args.output.file_stem().map_or_else(|| "run".into(), |stem| stem.to_string_lossy().into_owned());
        let output_dir = args.output_dir.clone().unwrap_or_else(|| format!("runs/{name}"));
        if let (Some(model), false) = (&args.model, args.data.is_empty()) {
            let (model, data) = (model.clone(), args.data.clone());
            return Ok(Self { model, data, eval: args.eval.clone(), method: args.method, output_dir });
        }
        let somebody_is_there = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !somebody_is_there {
            return Err(Failure::Input(
                "this is no terminal to ask on: give --model MODEL and --data FILE, for example\n  llm-foundry init \
                 --model HuggingFaceTB/SmolLM2-135M-Instruct --data train.jsonl"
                    .into(),
            ));
        }
        ask(args, output_dir).map_err(|error| match error {
            // Ctrl-C at a question.
            dialoguer::Error::IO(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                Failure::Interrupted("nothing was written".into())
            }
            error => Failure::run(error),
        })
    }
}

fn ask(args: &InitArgs, output_dir: String) -> Result<Answers, dialoguer::Error> {
    let model = match &args.model {
        Some(model) => model.clone(),
        None => Input::new()
            .with_prompt("Model: a directory, a .gguf file or a hub id")
            .default(SMALL_MODEL.to_owned())
            .interact_text()?,
    };
    let data = match args.data.is_empty() {
        false => args.data.clone(),
        true => vec![
            Input::new()
                .with_prompt("Training data: a file, a directory or a pattern")
                .validate_with(|name: &String| there(name))
                .interact_text()?,
        ],
    };
    let eval = match &args.eval {
        Some(eval) => Some(eval.clone()),
        None => {
            let name: String = Input::new()
                .with_prompt("Evaluation data (nothing: some of the training data is kept back)")
                .allow_empty(true)
                .validate_with(|name: &String| if name.is_empty() { Ok(()) } else { there(name) })
                .interact_text()?;
            Some(name).filter(|name| !name.is_empty())
        }
    };
    let method = match args.method {
        Some(method) => Some(method),
        None => {
            let methods = [
                (None, "an adapter (LoRA), on 4-bit weights if memory is short"),
                (Some(Method::Lora), "an adapter (LoRA)"),
                (Some(Method::Qlora), "an adapter on 4-bit weights (QLoRA): least memory"),
                (Some(Method::Full), "every weight: most memory"),
            ];
            let texts = methods.map(|(_, text)| text);
            let chosen = Select::new().with_prompt("What is trained").items(texts).default(0).interact()?;
            methods[chosen].0
        }
    };
    let output_dir = match &args.output_dir {
        Some(_) => output_dir,
        None => Input::new().with_prompt("Directory of the result").default(output_dir).interact_text()?,
    };
    Ok(Answers { model, data, eval, method, output_dir })
}

/// A file or directory that is there, a pattern, or the id of a data set.
fn there(name: &str) -> Result<(), String> {
    let may_be = expand_home(name).exists()
        || name.contains(['*', '?', '['])
        || (name.contains('/') && is_hub_id(name));
    if may_be { Ok(()) } else { Err(format!("there is no file {name}")) }
}
