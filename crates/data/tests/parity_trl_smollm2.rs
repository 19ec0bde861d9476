//! The same batches as TRL on a real tokenizer and a real instruction set.
//!
//! Needs data that is not in the repository, named by environment variables:
//! FOUNDRY_MODEL_DIR  a directory with SmolLM2-135M-Instruct's tokenizer files
//! FOUNDRY_DATA_DIR   a directory with `alpaca_en_demo.json` (LLaMA-Factory's demo set)
//! FOUNDRY_PARITY_DIR a directory with `smollm2/batches.safetensors`: `input_ids_i`, `labels_i`, `position_ids_i` of
//! the first steps of TRL's SFTTrainer (max_length 512, packing bfd, batch 1, seed 0)
//!
//! Run it with `cargo test -p foundry-data --test parity_trl_smollm2 -- --ignored`.

use std::path::PathBuf;
use std::sync::Arc;

use foundry_data::{Batches as _, DataSpec, Loader, PackingStrategy, load};
use foundry_formats::{Tokenizer, safetensors};

fn directory(variable: &str) -> PathBuf {
    PathBuf::from(
        std::env::var_os(variable).unwrap_or_else(|| panic!("set {variable}, see the top of this file")),
    )
}

#[test]
#[ignore = "needs FOUNDRY_MODEL_DIR, FOUNDRY_DATA_DIR and FOUNDRY_PARITY_DIR"]
fn the_first_ten_batches_are_trls() {
    let tokenizer = Tokenizer::from_dir(&directory("FOUNDRY_MODEL_DIR")).unwrap();
    let spec = DataSpec {
        files: vec![directory("FOUNDRY_DATA_DIR").join("alpaca_en_demo.json")],
        max_length: Some(512),
        packing: true,
        packing_strategy: PackingStrategy::Bfd,
        ..DataSpec::default()
    };
    let dataset = load(&spec, &tokenizer).unwrap();
    let expected =
        safetensors::open(&directory("FOUNDRY_PARITY_DIR").join("smollm2/batches.safetensors")).unwrap();
    let golden = |name: String| -> Vec<i64> {
        let info = expected.find(&name).unwrap_or_else(|| panic!("{name} is missing"));
        let mut values = vec![0; info.shape.iter().product()];
        expected.read_i64(&name, 0, &mut values).unwrap();
        values
    };
    let mut loader = Loader::new(Arc::new(dataset.rows), 1, 0, true, 0, 1);
    for i in 0..10 {
        let batch = loader.next_batch().expect("rows in memory").row;
        let tokens: Vec<i64> = batch.tokens.iter().map(|&t| i64::from(t)).collect();
        let labels: Vec<i64> = batch.labels.iter().map(|&l| i64::from(l)).collect();
        let positions: Vec<i64> = batch.position_ids().into_iter().map(i64::from).collect();
        assert_eq!(tokens, golden(format!("input_ids_{i}")), "input_ids of batch {i}");
        assert_eq!(labels, golden(format!("labels_{i}")), "labels of batch {i}");
        assert_eq!(positions, golden(format!("position_ids_{i}")), "position_ids of batch {i}");
    }
    println!("{}", dataset.report);
}
