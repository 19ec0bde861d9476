//! Rows, labels and batches of small data files against TRL's SFTTrainer (golden/make_trl_goldens.py made the file).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use foundry_data::{DataSpec, IGNORED, Loader, PackedRow, load};
use foundry_formats::Tokenizer;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Goldens {
    tagged_template: String,
    cases: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    case: Value,
    rows: Vec<Row>,
    /// Batches of two epochs, as indices of rows.
    epochs: Vec<Vec<Vec<usize>>>,
}

#[derive(Deserialize)]
struct Row {
    tokens: Vec<u32>,
    seq_lens: Vec<u32>,
    /// 0 and 1 for each token.
    labels: String,
}

impl Row {
    fn packed(&self) -> PackedRow {
        let label = |(&token, mask): (&u32, char)| if mask == '1' { token as i32 } else { IGNORED };
        let labels = self.tokens.iter().zip(self.labels.chars()).map(label).collect();
        PackedRow { tokens: self.tokens.clone(), seq_lens: self.seq_lens.clone(), labels }
    }
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn tiny_tokenizer() -> Tokenizer {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/fixtures/tiny_tokenizer");
    Tokenizer::from_dir(&dir).expect("the fixture")
}

/// The settings of a case: TRL's names are ours.
fn spec(case: &Value, tagged_template: &str, threads: usize) -> DataSpec {
    let flag = |key: &str| case[key].as_bool().unwrap_or(false);
    DataSpec {
        files: vec![golden_dir().join(case["file"].as_str().expect("a file"))],
        max_length: case["max_length"].as_u64().map(|n| n as usize),
        packing: flag("packing"),
        packing_strategy: serde_json::from_value(case["packing_strategy"].clone()).unwrap_or_default(),
        completion_only_loss: case["completion_only_loss"].as_bool(),
        assistant_only_loss: flag("assistant_only_loss"),
        shuffle_dataset: flag("shuffle_dataset"),
        seed: case["seed"].as_u64().expect("a seed"),
        chat_template: flag("tagged").then(|| tagged_template.to_owned()),
        dataset_num_proc: Some(threads),
        ..DataSpec::default()
    }
}

#[test]
fn rows_and_batches_are_trls() {
    let text = std::fs::read_to_string(golden_dir().join("trl.json")).expect("the golden file");
    let goldens: Goldens = serde_json::from_str(&text).expect("the golden file's form");
    assert_eq!(goldens.cases.len(), 12);
    let tokenizer = tiny_tokenizer();
    for golden in &goldens.cases {
        let case = &golden.case;
        let expected: Vec<PackedRow> = golden.rows.iter().map(Row::packed).collect();
        let dataset = load(&spec(case, &goldens.tagged_template, 1), &tokenizer).expect("a good data set");
        for (i, (ours, trl)) in dataset.rows.iter().zip(&expected).enumerate() {
            assert_eq!(ours, trl, "row {i} of {case}");
        }
        assert_eq!(dataset.rows.len(), expected.len(), "{case}");
        let threaded = load(&spec(case, &goldens.tagged_template, 3), &tokenizer).expect("a good data set");
        assert_eq!(threaded, dataset, "three threads, {case}");

        let batch_size = case["batch"].as_u64().unwrap_or(1) as usize;
        let seed = case["seed"].as_u64().expect("a seed");
        let mut loader = Loader::new(Arc::new(dataset.rows), batch_size, seed, true, 0, 1);
        for (epoch, batches) in golden.epochs.iter().enumerate() {
            for (i, batch) in batches.iter().enumerate() {
                assert_eq!(&loader.next_indices(), batch, "batch {i} of epoch {epoch}, {case}");
            }
        }
    }
}

/// A template without generation tags must give the mask that the same template with tags gives.
#[test]
fn prefix_masks_equal_tagged_masks() {
    let text = std::fs::read_to_string(golden_dir().join("trl.json")).expect("the golden file");
    let goldens: Goldens = serde_json::from_str(&text).expect("the golden file's form");
    let golden = goldens.cases.iter().find(|g| g.case["tagged"] == true).expect("a tagged case");
    let mut spec = spec(&golden.case, &goldens.tagged_template, 2);
    let plain = goldens.tagged_template.replace("{% generation %}", "").replace("{% endgeneration %}", "");
    assert_ne!(plain, goldens.tagged_template);
    spec.chat_template = Some(plain);
    let expected: Vec<PackedRow> = golden.rows.iter().map(Row::packed).collect();
    assert_eq!(load(&spec, &tiny_tokenizer()).expect("a good data set").rows, expected);
}
