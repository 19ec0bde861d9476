//! The order of batches against accelerate 1.15, and resume.

use super::*;

/// `n` rows, row i being the token i alone.
fn rows(n: u32) -> Arc<Vec<PackedRow>> {
    Arc::new((0..n).map(|i| PackedRow { tokens: vec![i], seq_lens: vec![1], labels: vec![-100] }).collect())
}

/// Batches of epoch `epoch` on one rank.
fn epoch(n: u32, batch: usize, seed: u64, epoch: u64, rank: usize, world: usize) -> Vec<Vec<usize>> {
    let mut loader = Loader::new(rows(n), batch, seed, true, rank, world);
    assert!(loader.seek(&Cursor { epoch, row: 0 }));
    (0..loader.batches_per_epoch().unwrap()).map(|_| loader.next_indices()).collect()
}

#[test]
fn one_rank_sees_accelerates_batches() {
    // SeedableRandomSampler(range(10), data_seed=0) in a BatchSampler of 3, epochs 0 and 1.
    assert_eq!(epoch(10, 3, 0, 0, 0, 1), [vec![4, 1, 7], vec![5, 3, 9], vec![0, 8, 6], vec![2]]);
    assert_eq!(epoch(10, 3, 0, 1, 0, 1), [vec![5, 6, 1], vec![2, 0, 8], vec![9, 3, 7], vec![4]]);
}

#[test]
fn several_ranks_see_batch_sampler_shards() {
    // BatchSamplerShard(…, num_processes, process_index) over the same samplers.
    assert_eq!(epoch(10, 3, 0, 0, 0, 2), [[4, 1, 7], [0, 8, 6]]);
    assert_eq!(epoch(10, 3, 0, 0, 1, 2), [[5, 3, 9], [2, 4, 1]]);
    assert_eq!(epoch(10, 2, 7, 0, 2, 3), [[1, 7], [5, 0]]);
    assert_eq!(epoch(12, 2, 5, 1, 1, 3), [[5, 0], [7, 1]]);
    assert_eq!(epoch(7, 4, 3, 1, 1, 2), [[2, 5, 6, 3]]);
    // Fewer rows than ranks times batch size: the start is repeated as often as needed.
    assert_eq!(epoch(2, 3, 1, 0, 0, 2), [[1, 0, 1]]);
    assert_eq!(epoch(2, 3, 1, 0, 1, 2), [[0, 1, 0]]);
    assert_eq!(epoch(1, 1, 9, 0, 3, 4), [[0]]);
}

#[test]
fn ranks_are_disjoint_and_cover_the_data_when_it_divides() {
    let mut seen: Vec<usize> = (0..3).flat_map(|rank| epoch(12, 2, 5, 0, rank, 3).concat()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
}

#[test]
fn a_sought_cursor_continues_the_stream() {
    let mut whole = Loader::new(rows(10), 3, 11, true, 1, 2);
    let stream: Vec<_> = (0..9).map(|_| (whole.cursor(), whole.next_indices())).collect();
    for (cursor, expected) in stream {
        let mut resumed = Loader::new(rows(10), 3, 11, true, 1, 2);
        assert!(resumed.seek(&cursor));
        assert_eq!(resumed.next_indices(), expected, "from {cursor:?}");
    }
}

/// The numbers of the rows that `ranks` ranks see in batches of two from `cursor` to the end of its epoch.
fn rest_of_epoch(cursor: Cursor, ranks: usize) -> Vec<usize> {
    let mut seen = Vec::new();
    for rank in 0..ranks {
        let mut loader = Loader::new(rows(24), 2, 3, true, rank, ranks);
        assert!(loader.seek(&cursor));
        while loader.cursor().epoch == cursor.epoch {
            seen.extend(loader.next_indices());
        }
    }
    seen
}

#[test]
fn another_number_of_ranks_sees_the_rest_of_the_epoch_once() {
    let mut first: Vec<Vec<usize>> = Vec::new();
    let mut cursor = Cursor::default();
    for rank in 0..2 {
        let mut loader = Loader::new(rows(24), 2, 3, true, rank, 2);
        first.extend([loader.next_indices(), loader.next_indices(), loader.next_indices()]);
        cursor = loader.cursor();
    }
    assert_eq!(cursor, Cursor { epoch: 0, row: 12 });
    for ranks in [1, 2, 3, 6] {
        let mut all = [first.concat(), rest_of_epoch(cursor, ranks)].concat();
        all.sort_unstable();
        assert_eq!(all, (0..24).collect::<Vec<_>>(), "{ranks} ranks go on where two stopped");
    }
    // Where it does not divide, the start of the order fills up the last batches, as at the end of any epoch.
    assert_eq!(rest_of_epoch(Cursor { epoch: 0, row: 14 }, 4).len(), 16);
}

#[test]
fn cursors_roll_over_and_survive_json() {
    let mut loader = Loader::new(rows(4), 2, 0, false, 0, 1);
    assert_eq!(
        loader.next_batch().unwrap(),
        MicroBatch {
            row: PackedRow { tokens: vec![0, 1], seq_lens: vec![1, 1], labels: vec![-100; 2] },
            numbers: vec![0, 1],
        }
    );
    let half = loader.state();
    assert_eq!(half.to_string(), r#"{"epoch":0,"row":2}"#);
    assert_eq!(loader.next_batch().unwrap().row.tokens, [2, 3]);
    assert_eq!(loader.cursor(), Cursor { epoch: 1, row: 0 });
    loader.restore(&half).unwrap();
    assert_eq!(loader.next_batch().unwrap().row.tokens, [2, 3]);
    let error = loader.restore(&serde_json::json!({"epoch": 0, "row": 4})).unwrap_err().to_string();
    assert!(error.contains("it is at row 4 of an epoch, but the data has 4 row(s)"), "{error}");
    let error = loader.restore(&serde_json::json!({"epoch": 0, "batch": 4})).unwrap_err().to_string();
    assert!(error.contains("unknown field `batch`"), "{error}");
}

#[test]
fn a_batch_is_one_flattened_row() {
    let row = |t: u32| PackedRow { tokens: vec![t, t], seq_lens: vec![1, 1], labels: vec![-100, -100] };
    let mut loader = Loader::new(Arc::new(vec![row(1), row(2)]), 2, 0, false, 0, 1);
    let batch = loader.next_batch().unwrap().row;
    assert_eq!(batch.tokens, [1, 1, 2, 2]);
    assert_eq!(batch.seq_lens, [1, 1, 1, 1]);
    assert_eq!(batch.labels.len(), 4);
}
