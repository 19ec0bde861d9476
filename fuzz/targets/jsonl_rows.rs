//! Rows of JSON Lines, of any shape, to packed rows: an error or sound rows.

use foundry_data::{DataSpec, load};

use crate::scratch;

/// The first byte chooses settings, the rest is the file.
pub(crate) fn run(data: &[u8]) {
    let Some((&settings, file)) = data.split_first() else { return };
    scratch::with_file("rows.jsonl", file, |path| {
        let spec = DataSpec {
            files: vec![path.to_owned()],
            max_length: Some(32),
            packing: settings & 1 != 0,
            assistant_only_loss: settings & 2 != 0,
            shuffle_dataset: settings & 4 != 0,
            dataset_num_proc: Some(1),
            ..DataSpec::default()
        };
        let Ok(dataset) = load(&spec, scratch::tokenizer()) else { return };
        assert!(dataset.report.labelled_tokens > 0, "a data set without labels must be refused");
        for row in &dataset.rows {
            assert_eq!(row.tokens.len(), row.labels.len());
            assert_eq!(row.tokens.len(), row.seq_lens.iter().sum::<u32>() as usize);
            assert!(row.tokens.len() <= 32 && !row.seq_lens.contains(&0));
        }
    });
}
