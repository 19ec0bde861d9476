//! IFEval (Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models"; lm_eval 0.4.13
//! `tasks/ifeval`): which of a prompt's instructions an answer follows, strictly, or loosely, which is in any of eight
//! readings: without asterisks, without its first or last line.

mod instruction;
mod language;
mod sentences;
mod words;

use crate::document::{Score, Scores};
use crate::python::text::strip;
use instruction::Instruction;
use serde_json::Value;

/// The four accuracies of an answer: of the prompt as a whole and of each instruction, strict and loose.
pub(super) fn scores(document: &Value, answer: &str) -> Result<Scores, String> {
    let list = |key: &str| {
        let items = document.get(key).and_then(Value::as_array);
        items.ok_or_else(|| format!("there is no list `{key}`"))
    };
    let (ids, arguments) = (list("instruction_id_list")?, list("kwargs")?);
    if arguments.len() < ids.len() {
        return Err(format!("{} instructions, but {} items of `kwargs`", ids.len(), arguments.len()));
    }
    let readings = readings(answer);
    let (mut strict, mut loose) = (Vec::new(), Vec::new());
    for (id, arguments) in ids.iter().zip(arguments) {
        let id = id.as_str().ok_or("`instruction_id_list` must be texts")?;
        let instruction = Instruction::read(id, arguments)?;
        let follows = |text: &str| {
            let followed =
                !strip(text).is_empty() && instruction.is_followed(text).map_err(|e| too_hard(id, &e.0))?;
            Ok::<bool, String>(followed)
        };
        strict.push(follows(answer)?);
        let mut is_followed = false;
        for reading in &readings {
            is_followed = is_followed || follows(reading)?;
        }
        loose.push(is_followed);
    }
    let whole = |all: &[bool]| Score::Flag(all.iter().all(|followed| *followed));
    Ok(vec![
        ("prompt_level_strict_acc".into(), whole(&strict)),
        ("inst_level_strict_acc".into(), Score::Flags(strict)),
        ("prompt_level_loose_acc".into(), whole(&loose)),
        ("inst_level_loose_acc".into(), Score::Flags(loose)),
    ])
}

fn too_hard(id: &str, problem: &str) -> String {
    format!("the instruction `{id}` cannot be checked: {problem}")
}

/// The answer as a friendly reader might take it.
fn readings(answer: &str) -> Vec<String> {
    let lines: Vec<&str> = answer.split('\n').collect();
    let joined = |lines: &[&str]| strip(&lines.join("\n")).to_owned();
    let last = lines.len() - 1;
    let mut readings = vec![
        answer.to_owned(),
        joined(&lines[1..]),
        joined(&lines[..last]),
        joined(&lines[1.min(last)..last]),
    ];
    readings.extend(readings.clone().iter().map(|reading| reading.replace('*', "")));
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Texts and instructions of `make_ifeval.py` with what lm_eval's checkers say.
    #[test]
    fn texts_follow_what_they_follow_for_lm_eval() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/goldens/ifeval.json")).unwrap();
        let list = |key: &str| golden[key].as_array().unwrap().clone();
        let instructions = list("instructions");
        let ids: Vec<&Value> = instructions.iter().map(|instruction| &instruction["id"]).collect();
        let kwargs: Vec<&Value> = instructions.iter().map(|instruction| &instruction["kwargs"]).collect();
        let document = json!({"instruction_id_list": ids, "kwargs": kwargs});
        let mut wrong = Vec::new();
        for (at, text) in list("texts").iter().enumerate() {
            let scores = scores(&document, text.as_str().unwrap()).unwrap();
            for (key, score) in [("strict", &scores[1].1), ("loose", &scores[3].1)] {
                let Score::Flags(flags) = score else { panic!("one answer for each instruction") };
                let expected = golden[key][at].as_str().unwrap();
                assert_eq!(expected.len(), flags.len());
                for ((expected, flag), instruction) in expected.chars().zip(flags).zip(&instructions) {
                    if expected != '?' && (expected == '1') != *flag {
                        wrong.push(format!("{key}, {instruction}, {text}: not {flag}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    }

    #[test]
    fn a_prompt_is_followed_when_all_its_instructions_are() {
        let document = json!({
            "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
            "kwargs": [{"num_words": null}, {}],
        });
        let scores = scores(&document, "\"One\"\nand more").unwrap();
        let values: Vec<Value> = scores.iter().map(|(_, score)| score.json()).collect();
        assert_eq!(values, [json!(false), json!([true, false]), json!(true), json!([true, true])]);
        let names: Vec<&str> = scores.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "prompt_level_strict_acc");
    }

    #[test]
    fn documents_that_ask_for_what_there_is_not_are_refused() {
        let problem = |id: &str, kwargs: Value| {
            scores(&json!({"instruction_id_list": [id], "kwargs": [kwargs]}), "x").unwrap_err()
        };
        assert!(problem("keywords:all", json!({})).contains("no instruction `keywords:all`"));
        let words = "length_constraints:number_words";
        assert!(problem(words, json!({"num_words": 3, "relation": null})).contains("no `relation`"));
        assert!(problem(words, json!({"num_words": 3, "relation": "about"})).contains("`at least`"));
        assert!(problem(words, json!({"num_words": "3", "relation": "at least"})).contains("whole number"));
        assert!(problem("punctuation:no_comma", json!({"language": "en"})).contains("takes no `language`"));
        assert!(problem("keywords:existence", json!({"keywords": ["("]})).contains("regular expression"));
        let missing = scores(&json!({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}), "x");
        assert!(missing.unwrap_err().contains("0 items of `kwargs`"));
        assert!(scores(&json!({"kwargs": []}), "x").unwrap_err().contains("`instruction_id_list`"));
    }
}
