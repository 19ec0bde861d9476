//! Holding examples out of token files: all rows of a conversation on one side, and nothing on both.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;

use super::tests::{Room, tiny, to_version_1};
use crate::spec::{Holdout, MultiTurn, Source, StoppingStrategy};
use crate::{
    Batches as _, DataSpec, Dataset, PackedRow, StreamLoader, StreamSpec, held_out, load_with_holdout,
};

/// A room with `chats.jsonl`: conversations of up to five turns, a row for each.
fn conversations(count: usize) -> (Room, DataSpec) {
    let room = Room::new(0, 20);
    let chat = |i: usize| {
        let turn = |role: &str, text: String| json!({"role": role, "content": text});
        let turns = (0..=i % 5).flat_map(|n| {
            [turn("user", format!("conversation {i}, what is {n}?")), turn("assistant", format!("{}", i * n))]
        });
        json!({"messages": turns.collect::<Vec<_>>()})
    };
    let lines: String = (0..count).map(|i| format!("{}\n", chat(i))).collect();
    std::fs::write(room.dir.path().join("chats.jsonl"), lines).unwrap();
    let data = DataSpec { multi_turn: MultiTurn::Split, ..room.spec(&["chats.jsonl"]) };
    (room, data)
}

/// Which conversations rows are of.
fn numbers(rows: &[PackedRow]) -> HashSet<String> {
    let text = |row: &PackedRow| tiny().decode(&row.tokens, false).unwrap();
    rows.iter()
        .map(|row| text(row).split("conversation ").nth(1).unwrap().split(',').next().unwrap().into())
        .collect()
}

fn divided(data: &DataSpec, part: f64) -> (Dataset, Dataset) {
    load_with_holdout(data, data, &tiny(), Holdout::Fraction(part)).unwrap()
}

#[test]
fn conversations_that_were_split_are_on_one_side() {
    let (room, data) = conversations(200);
    let done = room.tokenize(&data, (0, 1)).unwrap();
    assert_eq!(done.counts.documents, 600);
    let tokens = room.as_tokens(&data);
    let (raw, found) = (divided(&data, 0.25), divided(&tokens, 0.25));
    assert_eq!((&raw.0.rows, &raw.1.rows), (&found.0.rows, &found.1.rows));
    assert!(numbers(&found.0.rows).is_disjoint(&numbers(&found.1.rows)));
    assert_eq!(numbers(&found.1.rows).len(), 50);
    // A stream draws by conversations too, wherever it begins.
    let spec = StreamSpec {
        data: tokens.clone(),
        shuffle_buffer: 7,
        order_seed: 3,
        eval_fraction: 0.25,
        rows_per_epoch: None,
        batch_size: 1,
        rank: 0,
        world_size: 1,
    };
    let eval = numbers(&held_out(&spec, &tokens, &tiny()).unwrap().rows);
    assert!(eval.len() > 30, "{}", eval.len());
    let mut stream = StreamLoader::new(spec.clone(), Arc::new(tiny())).unwrap();
    let mut trained = Vec::new();
    for step in 0..900 {
        if step % 100 == 50 {
            let state = stream.state();
            stream = StreamLoader::new(spec.clone(), Arc::new(tiny())).unwrap();
            stream.restore(&state).unwrap();
        }
        trained.push(stream.next_batch().unwrap().row);
    }
    let trained = numbers(&trained);
    assert!(trained.is_disjoint(&eval));
    assert_eq!(trained.len() + eval.len(), 200, "nothing is lost");
}

#[test]
fn version_1_does_not_know_and_is_refused_where_that_matters() {
    let (room, data) = conversations(20);
    room.tokenize(&data, (0, 1)).unwrap();
    to_version_1(&room.dir.path().join("tokens"));
    let tokens = room.as_tokens(&data);
    assert_eq!(crate::load(&tokens, &tiny()).unwrap().rows, crate::load(&data, &tiny()).unwrap().rows);
    let part = Holdout::Fraction(0.25);
    let error = load_with_holdout(&tokens, &tokens, &tiny(), part).unwrap_err().to_string();
    assert!(error.contains("older version") && error.contains("data.eval_fraction"), "{error}");
    // Whole conversations are one document each.
    let room = Room::new(0, 20);
    let data = room.spec(&["a.jsonl"]);
    room.tokenize(&data, (0, 1)).unwrap();
    to_version_1(&room.dir.path().join("tokens"));
    let (raw, found) = (divided(&data, 0.25), divided(&room.as_tokens(&data), 0.25));
    assert_eq!((raw.0.rows, raw.1.rows), (found.0.rows, found.1.rows));
}

#[test]
fn what_a_mixture_repeats_is_on_one_side() {
    let (room, split) = conversations(12);
    std::fs::write(room.dir.path().join("more.jsonl"), {
        let line = |i: usize| {
            json!({"messages": [{"role": "user", "content": format!("conversation {i}, hm?")},
            {"role": "assistant", "content": "yes"}]})
        };
        (100..200).map(|i| format!("{}\n", line(i))).collect::<String>()
    })
    .unwrap();
    room.tokenize(&split, (0, 1)).unwrap();
    let few = room.as_tokens(&split).sources[0].files.clone();
    for few in [room.source(&["chats.jsonl"]).files, few] {
        let source =
            |files, probability| Source { files, probability: Some(probability), ..Source::default() };
        let data = DataSpec {
            sources: vec![source(few, 0.5), source(room.source(&["more.jsonl"]).files, 0.5)],
            stopping_strategy: StoppingStrategy::AllExhausted,
            ..split.clone()
        };
        let (training, evaluation) = divided(&data, 0.3);
        let (trained, measured) = (numbers(&training.rows), numbers(&evaluation.rows));
        assert!(trained.is_disjoint(&measured));
        assert_eq!(trained.len() + measured.len(), 112);
        assert!(training.rows.len() > 130, "the few are repeated: {}", training.rows.len());
        let few = |numbers: &HashSet<String>| numbers.iter().filter(|number| number.len() < 3).count();
        assert!((1..=6).contains(&few(&measured)), "what is repeated is not held out rather than others");
        let different: HashSet<_> = evaluation.rows.iter().map(|row| &row.tokens).collect();
        assert_eq!(different.len(), evaluation.rows.len(), "nothing is measured twice");
    }
}

#[test]
fn take_counts_both_sides() {
    let room = Room::new(0, 400);
    let mut data = room.spec(&["a.jsonl"]);
    data.sources[0].take = Some(100);
    let spec = StreamSpec {
        data: data.clone(),
        shuffle_buffer: 0,
        order_seed: 3,
        eval_fraction: 0.3,
        rows_per_epoch: None,
        batch_size: 1,
        rank: 0,
        world_size: 1,
    };
    let eval = held_out(&spec, &data, &tiny()).unwrap().rows;
    let mut stream = StreamLoader::new(spec, Arc::new(tiny())).unwrap();
    let mut trained = HashSet::new();
    for _ in 0..200 {
        trained.insert(stream.next_batch().unwrap().row.tokens);
    }
    assert!((20..40).contains(&eval.len()), "{}", eval.len());
    assert_eq!(trained.len() + eval.len(), 100);
    assert!(eval.iter().all(|row| !trained.contains(&row.tokens)));
}
