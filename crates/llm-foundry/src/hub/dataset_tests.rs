//! Data sets of the hub against a small server on loopback.

use super::tests::{COMMIT, Client, Hub};
use super::*;
use std::path::Path;

const README: &str = "---\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    path: main/train-*\n  \
                      - split: test\n    path: main/test-*\n- config_name: other\n  data_files: other.jsonl\n---\n";

fn hub() -> Hub {
    Hub::with(&[
        ("README.md", README),
        (".gitattributes", ""),
        ("main/train-0.jsonl", "first file of rows"),
        ("main/train-1.jsonl", "second file of rows"),
        ("main/test-0.jsonl", "tests"),
        ("other.jsonl", "others"),
        ("loader.py", "code"),
    ])
}

fn part(name: Option<&str>, split: &str) -> Part {
    Part { name: name.map(str::to_owned), split: split.to_owned(), revision: "main".to_owned(), files: None }
}

fn fetched(client: &Client, part: &Part) -> Result<Vec<PathBuf>, HubError> {
    fetch_dataset(&client.settings, "org/name", part, Fetch::Silent)
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| std::fs::read_to_string(path).expect("downloaded")).collect()
}

#[test]
fn a_split_is_downloaded_once_and_the_rest_is_not() {
    let server = hub().start();
    let client = Client::new(&server.endpoint, &[]);
    let train = fetched(&client, &part(None, "train")).expect("downloaded");
    assert_eq!(texts(&train), ["first file of rows", "second file of rows"]);
    let snapshot = client.settings.cache.join("datasets--org--name/snapshots").join(COMMIT);
    assert_eq!(train[0], snapshot.join("main/train-0.jsonl"), "the layout of huggingface_hub");
    assert!(!snapshot.join("other.jsonl").exists() && !snapshot.join("loader.py").exists());
    let asked = server.requests.lock().expect("not poisoned").len();
    assert_eq!(fetched(&client, &part(None, "train")).expect("cached"), train);
    assert_eq!(server.requests.lock().expect("not poisoned").len(), asked, "the network was used again");
    let other = fetched(&client, &part(Some("other"), "train")).expect("downloaded");
    assert_eq!(texts(&other), ["others"]);
    let said = fetched(&client, &part(None, "validation")).expect_err("no such split").to_string();
    assert!(said.contains("the data set org/name (revision main): it has no split `validation`"), "{said}");
}

#[test]
fn offline_has_what_was_fetched_and_names_what_is_missing() {
    let server = hub().start();
    let mut client = Client::new(&server.endpoint, &[("HF_HUB_OFFLINE", "1")]);
    let said = fetched(&client, &part(None, "train")).expect_err("nothing there").to_string();
    assert!(said.contains("the data set is not in the cache"), "{said}");
    client.settings.offline = false;
    let train = fetched(&client, &part(None, "train")).expect("downloaded");
    client.settings.offline = true;
    assert_eq!(fetched(&client, &part(None, "train")).expect("cached"), train);
    let said = fetched(&client, &part(None, "test")).expect_err("not fetched").to_string();
    assert!(said.contains("main/test-0.jsonl not in the cache"), "{said}");
    client.settings.offline = false;
    let plan = fetch_dataset(&client.settings, "org/name", &part(None, "test"), Fetch::No);
    assert!(plan.expect_err("a plan fetches nothing").to_string().contains("not in the cache"));
    std::fs::remove_file(&train[1]).expect("removed");
    let again = fetched(&client, &part(None, "train")).expect("fetched again");
    assert_eq!(texts(&again)[1], "second file of rows");
}

#[test]
fn files_are_had_by_name_or_pattern() {
    let server = hub().start();
    let client = Client::new(&server.endpoint, &[]);
    let of = |files: &str| Part { files: Some(files.to_owned()), ..part(None, "test") };
    let fetched = |files: &str| fetched(&client, &of(files));
    assert_eq!(texts(&fetched("other.jsonl").expect("downloaded")), ["others"]);
    let train = ["first file of rows", "second file of rows"];
    assert_eq!(texts(&fetched("main/train-*").expect("downloaded")), train);
    let said = fetched("gone.jsonl").expect_err("not there").to_string();
    assert!(said.contains("no file `gone.jsonl`"), "{said}");
}

#[test]
fn a_snapshot_that_another_program_made_is_used_offline() {
    let client = Client::new("http://127.0.0.1:1", &[("HF_HUB_OFFLINE", "1")]);
    let repository = client.settings.cache.join("datasets--org--name");
    let write = |name: &str, text: &str| {
        let path = repository.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write("refs/main", COMMIT);
    write(&format!("snapshots/{COMMIT}/data/train-00000-of-00001.parquet"), "x");
    let found = fetched(&client, &part(None, "train")).expect("there");
    assert!(found[0].ends_with("data/train-00000-of-00001.parquet"));
}

#[test]
fn refusals_say_what_to_do() {
    let private = Hub { token: Some("secret".into()), ..hub() }.start();
    let said =
        fetched(&Client::new(&private.endpoint, &[]), &part(None, "train")).expect_err("private").to_string();
    assert!(said.contains("401") && said.contains("set HF_TOKEN"), "{said}");
    let client = Client::new(&private.endpoint, &[("HF_TOKEN", "secret")]);
    fetched(&client, &part(None, "train")).expect("downloaded");
    let said = fetch_dataset(&client.settings, "org/nothing", &part(None, "train"), Fetch::Silent);
    assert!(said.expect_err("unknown").to_string().contains("knows no such data set"));
    let cut = Hub { drop_after: Some(8), ..hub() }.start();
    let client = Client::new(&cut.endpoint, &[]);
    let mut refusals = 0;
    let train = loop {
        match fetched(&client, &part(None, "train")) {
            Ok(train) => break train,
            Err(error) => assert!(error.to_string().contains("run the command again to continue"), "{error}"),
        }
        refusals += 1;
        assert!(refusals < 9, "it never ends");
    };
    assert!(refusals > 0);
    assert_eq!(texts(&train), ["first file of rows", "second file of rows"]);
}
