//! Packing against TRL's documented vectors and against a slow, literal transcription of its algorithm.

use proptest::prelude::*;

use super::*;

/// Sequences of the given lengths with tokens 1, 2, 3, … throughout, all labelled.
fn sequences(lengths: &[usize]) -> Vec<Sequence> {
    let mut next = 0u32;
    let mut take = |n: usize| -> Vec<u32> {
        (0..n)
            .map(|_| {
                next += 1;
                next
            })
            .collect()
    };
    lengths
        .iter()
        .map(|&n| {
            let tokens = take(n);
            Sequence { labels: tokens.iter().map(|&t| t as i32).collect(), tokens }
        })
        .collect()
}

fn tokens(rows: &[PackedRow]) -> Vec<Vec<u32>> {
    rows.iter().map(|r| r.tokens.clone()).collect()
}

fn lens(rows: &[PackedRow]) -> Vec<Vec<u32>> {
    rows.iter().map(|r| r.seq_lens.clone()).collect()
}

#[test]
fn bfd_gives_the_vector_of_trls_docstring() {
    let rows = pack(&sequences(&[5, 2, 3, 1]), 4, PackingStrategy::Bfd);
    assert_eq!(tokens(&rows), [vec![1, 2, 3, 4], vec![8, 9, 10, 11], vec![6, 7]]);
    assert_eq!(lens(&rows), [vec![4], vec![3, 1], vec![2]]);
    assert_eq!(rows[1].labels, [-100, 9, 10, -100], "the first label of each sequence is ignored");
}

#[test]
fn bfd_split_gives_the_vector_of_trls_docstring() {
    let rows = pack(&sequences(&[5, 2, 3, 1]), 4, PackingStrategy::BfdSplit);
    assert_eq!(tokens(&rows), [vec![1, 2, 3, 4], vec![8, 9, 10, 5], vec![6, 7, 11]]);
    assert_eq!(lens(&rows), [vec![4], vec![3, 1], vec![2, 1]]);
}

#[test]
fn wrapped_cuts_each_chunk_on_its_own() {
    let rows = pack(&sequences(&[5, 2, 3, 1]), 4, PackingStrategy::Wrapped);
    assert_eq!(tokens(&rows), [vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10, 11]]);
    assert_eq!(lens(&rows), [[4], [4], [3]]);
    // 1001 sequences of one token: the chunk of 1000 ends with a short row of 1000 % 7 = 6 tokens, then comes the last.
    let rows = pack(&sequences(&[1; 1001]), 7, PackingStrategy::Wrapped);
    assert_eq!(rows.len(), 143 + 1);
    assert_eq!((rows[142].tokens.len(), rows[143].tokens.len()), (6, 1));
}

#[test]
fn chunks_of_a_thousand_examples_do_not_share_rows() {
    let mut lengths = vec![4; 1000];
    lengths[0] = 1;
    lengths.push(3);
    let rows = pack(&sequences(&lengths), 4, PackingStrategy::Bfd);
    // The 3 would fit beside the 1, but stands in the second chunk.
    assert_eq!(rows.len(), 1001);
    assert!(rows.iter().all(|r| r.seq_lens.len() == 1));
}

#[test]
fn empty_sequences_vanish() {
    let rows = pack(&sequences(&[0, 2, 0]), 4, PackingStrategy::Bfd);
    assert_eq!(tokens(&rows), [[1, 2]]);
    assert!(pack(&sequences(&[0, 0]), 4, PackingStrategy::Wrapped).is_empty());
    assert_eq!(one_per_row(sequences(&[0, 2])).len(), 1);
    assert!(pack(&[], 4, PackingStrategy::BfdSplit).is_empty());
}

/// TRL's `_SegmentTree` and loop, transcribed without thought for speed: linear search for the best fitting space.
fn literal_bfd(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|a, b| lengths[*b].cmp(&lengths[*a]));
    let mut available = vec![false; capacity + 1];
    available[capacity] = true;
    let mut queues: Vec<Vec<usize>> = vec![Vec::new(); capacity + 1];
    let mut bins: Vec<Vec<usize>> = Vec::new();
    for id in order {
        let space = (lengths[id]..=capacity).find(|&s| available[s]).expect("a whole bin is always there");
        let bin = if space < capacity {
            queues[space].remove(0)
        } else {
            bins.push(Vec::new());
            bins.len() - 1
        };
        bins[bin].push(id);
        if space < capacity && queues[space].is_empty() {
            available[space] = false;
        }
        let rest = space - lengths[id];
        queues[rest].push(bin);
        if rest > 0 {
            available[rest] = true;
        }
    }
    bins
}

proptest! {
    #[test]
    fn best_fit_equals_the_literal_algorithm(
        capacity in 1usize..40,
        seeds in prop::collection::vec(0usize..1000, 0..200),
    ) {
        let lengths: Vec<usize> = seeds.iter().map(|s| s % capacity + 1).collect();
        prop_assert_eq!(best_fit_decreasing(&lengths, capacity), literal_bfd(&lengths, capacity));
    }

    #[test]
    fn no_token_is_lost_or_doubled(lengths in prop::collection::vec(0usize..60, 0..80), capacity in 1usize..25) {
        let sequences = sequences(&lengths);
        for strategy in [PackingStrategy::BfdSplit, PackingStrategy::Wrapped, PackingStrategy::Bfd] {
            let rows = pack(&sequences, capacity, strategy);
            let mut seen: Vec<u32> = rows.iter().flat_map(|r| r.tokens.iter().copied()).collect();
            seen.sort_unstable();
            let keep = |len: usize| if strategy == PackingStrategy::Bfd { len.min(capacity) } else { len };
            let expected: Vec<u32> =
                sequences.iter().flat_map(|s| s.tokens[..keep(s.tokens.len())].iter().copied()).collect();
            prop_assert_eq!(seen, expected);
            for row in &rows {
                prop_assert!(!row.tokens.is_empty() && row.tokens.len() <= capacity);
                prop_assert_eq!(row.seq_lens.iter().sum::<u32>() as usize, row.tokens.len());
                prop_assert_eq!(row.labels.len(), row.tokens.len());
            }
        }
    }
}
