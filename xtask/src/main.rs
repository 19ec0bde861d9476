//! Developer chores. One file per chore; `cargo xtask` alone lists them.

#![forbid(unsafe_code)]

mod bench;
mod crash;
mod golden;
mod peer;
mod quickstart;
mod shell;
mod smollm2;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask <chore>

  quickstart   build, get SmolLM2-135M-Instruct, fine-tune it, show answers before and after
               --offline-fallback   pre-train a small model from random weights instead
  test         everything that must pass before a commit (CI runs exactly this)
  tidy         the rules of the house that a machine can check
  crash        kill training runs at every named and at 200 random moments, and fill their disk
               [KILLS]   so many random kills instead
  bench        matmul rate of this machine's kernels, one line per shape
               --peer PYTHON --model DIR --data FILE   TRL and llm-foundry by turns: the table of ratios
  golden       list the scripts that compute golden numbers with the Python peers
               NAME PYTHON [ARGS…]  run one of them
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (chore, rest) = match args.split_first() {
        Some((chore, rest)) => (chore.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match chore {
        "quickstart" => quickstart::run(rest),
        "test" => test::run(rest),
        "tidy" => tidy::run(rest),
        "crash" => crash::run(rest),
        "bench" => bench::run(rest),
        "golden" => golden::run(rest),
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(anyhow::anyhow!("there is no chore '{other}'\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
