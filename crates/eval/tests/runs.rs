//! Whole tasks on a model that is easy to calculate by hand.

use foundry_eval::{
    Conventions, Documents, EvalError, GenerateRequest, LanguageModel, Library, Limit, LogLikelihood,
    PromptStyle, Results, RunOptions, ScoreRequest, TaskResult, TaskSpec, Turn, evaluate_task,
};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Characters as tokens; each character's log-probability is minus its place in the alphabet (space: 0). Generates
/// what was given to it.
#[derive(Default)]
struct Alphabet {
    answers: Vec<String>,
    prompts: Vec<String>,
    is_broken: bool,
}

impl LanguageModel for Alphabet {
    fn encode(&mut self, text: &str, _: bool) -> Result<Vec<u32>, EvalError> {
        Ok(text.chars().map(|c| c as u32).collect())
    }
    fn log_likelihood(&mut self, requests: &[ScoreRequest]) -> Result<Vec<LogLikelihood>, EvalError> {
        let text = |tokens: &[u32]| tokens.iter().filter_map(|&t| char::from_u32(t)).collect::<String>();
        let score = |request: &ScoreRequest| {
            let scored = &request.tokens[request.tokens.len() - request.scored..];
            let cost = |&token: &u32| if token == 32 { 0.0 } else { f64::from(token) - 96.0 };
            let log_prob = if self.is_broken { f64::NAN } else { -scored.iter().map(cost).sum::<f64>() };
            LogLikelihood { log_prob, is_greedy: text(scored) == " a" }
        };
        let answers = requests.iter().map(score).collect();
        self.prompts.extend(requests.iter().map(|request| text(&request.tokens)));
        Ok(answers)
    }
    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<String>, EvalError> {
        self.prompts.extend(
            requests.iter().map(|r| r.tokens.iter().filter_map(|&t| char::from_u32(t)).collect::<String>()),
        );
        Ok((0..requests.len()).map(|i| self.answers[i % self.answers.len()].clone()).collect())
    }
}

#[derive(Default)]
struct Splits(HashMap<&'static str, Vec<Value>>);

impl Documents for Splits {
    fn split(&mut self, _: &TaskSpec, split: &str) -> Result<Vec<Value>, String> {
        self.0.get(split).cloned().ok_or_else(|| format!("no split {split}"))
    }
}

fn conventions() -> Conventions {
    Conventions { max_length: 500, prefix_token: 94, prefix_text: "^".into(), eos_text: None }
}

/// A task from the text of its file.
fn task(yaml: &str) -> Result<TaskSpec, EvalError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut library = Library::default();
    Ok(library.select(&[file.display().to_string()])?.tasks.remove(0))
}

fn run(
    yaml: &str,
    model: &mut Alphabet,
    splits: &[(&'static str, Value)],
    options: &RunOptions<'_>,
) -> Result<TaskResult, EvalError> {
    let splits = splits.iter().map(|(name, rows)| (*name, rows.as_array().unwrap().clone())).collect();
    evaluate_task(&task(yaml)?, model, &conventions(), &mut Splits(splits), options)
}

fn value(result: &TaskResult, metric: &str, filter: &str) -> f64 {
    result.metrics.iter().find(|m| m.name == metric && m.filter == filter).expect(metric).value
}

const CHOICE: &str = r#"
task: t
dataset_path: d
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: options
doc_to_target: gold
metric_list:
"#;

fn choice(metrics: &[&str]) -> String {
    metrics.iter().fold(CHOICE.to_owned(), |text, metric| format!("{text}  - metric: {metric}\n"))
}

#[test]
fn choices_are_ranked_plain_by_length_and_by_gain() {
    // "c" costs 3; "bb" costs 4 in all and 2 per character: acc picks the first, acc_norm the second.
    let rows = json!([
        {"q": "q:", "options": ["c", "bb"], "gold": 0}, {"q": "q:", "options": ["c", "bb"], "gold": 1},
        {"q": "q:", "options": ["a", "b"], "gold": 0}, {"q": "q:", "options": ["a", "a"], "gold": 1}
    ]);
    let metrics =
        ["acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "mcc", "brier_score"];
    let options = RunOptions { bootstrap_iterations: 10, log_samples: true, ..RunOptions::default() };
    let mut model = Alphabet::default();
    let result = run(&choice(&metrics), &mut model, &[("test", rows)], &options).unwrap();
    assert_eq!(value(&result, "acc", "none"), 0.5, "documents 0 and 2; a tie goes to the first choice");
    assert_eq!(value(&result, "acc_norm", "none"), 0.5, "documents 1 and 2");
    // The model does not look at the context, so that nothing is gained by it: the first choice each time.
    assert_eq!(value(&result, "acc_mutual_info", "none"), 0.5);
    assert_eq!(value(&result, "exact_match", "none"), 0.5, "documents 2 and 3 expect ` a`");
    assert_eq!(result.metrics[0].stderr, Some((1.0f64 / 3.0).sqrt() / 2.0));
    assert_eq!(model.prompts[..4], ["q: c", "q: bb", "^ c", "^ bb"]);
    let sample = &result.logged[1].fields;
    assert_eq!(sample["arguments"]["gen_args_1"], json!({"arg_0": "q:", "arg_1": " bb"}));
    assert_eq!(sample["resps"][1], json!([["-4.0", "False"]]));
    assert_eq!((&sample["target"], &sample["acc"]), (&json!("1"), &json!(0.0)));
    // python: hashlib.sha256(b"q:").hexdigest()
    assert_eq!(sample["prompt_hash"], foundry_eval::sha256("q:"));
}

#[test]
fn examples_come_before_the_question() {
    let train: Vec<Value> =
        (0..30).map(|i| json!({"q": format!("n{i}"), "options": ["a", "b"], "gold": i % 2})).collect();
    let test =
        json!([{"q": "x", "options": ["a", "b"], "gold": 0}, {"q": "y", "options": ["a", "b"], "gold": 0}]);
    let yaml = choice(&["acc"]).replace("test_split: test", "training_split: train\ntest_split: test");
    let yaml = format!("{yaml}num_fewshot: 2\ndescription: \"D {{{{q}}}}.\"\n");
    let splits = [("test", test.clone()), ("train", json!(train))];
    let mut model = Alphabet::default();
    let result = run(&yaml, &mut model, &splits, &RunOptions::default()).unwrap();
    assert_eq!((result.num_fewshot, result.samples), (2, 2));
    // python: r = random.Random(1234); r.sample(range(30), 2), r.sample(range(30), 2)
    assert_eq!(model.prompts[0], "D x.n24 a\n\nn14 a\n\nx a");
    assert_eq!(model.prompts[3], "D y.n3 b\n\nn0 a\n\ny b");

    let first_n = format!("{yaml}fewshot_config: {{sampler: first_n}}\n");
    let mut model = Alphabet::default();
    let options = RunOptions { num_fewshot: Some(1), limit: Some(Limit::Count(1)), ..RunOptions::default() };
    assert_eq!(run(&first_n, &mut model, &splits, &options).unwrap().original, 2);
    assert_eq!(model.prompts, ["D x.n0 a\n\nx a", "D x.n0 a\n\nx b"]);

    // A split of its own: the question is never among its examples.
    let own = choice(&["acc"]) + "fewshot_split: test\nnum_fewshot: 1\n";
    let mut model = Alphabet::default();
    run(&own, &mut model, &[("test", test)], &RunOptions::default()).unwrap();
    assert_eq!([&model.prompts[0], &model.prompts[2]], ["y a\n\nx a", "x a\n\ny a"]);
}

#[test]
fn conversations_have_turns_or_one_question() {
    let render = |turns: &[Turn], asks: bool| -> Result<String, String> {
        let lines: String = turns.iter().map(|turn| format!("<{}>{}", turn.role, turn.content)).collect();
        Ok(lines + if asks { "<assistant>" } else { "" })
    };
    let train = json!([{"q": "n", "options": ["a", "b"], "gold": 1}]);
    let test = json!([{"q": "x", "options": ["a", "b"], "gold": 0}]);
    let yaml = choice(&["acc"]) + "training_split: train\nnum_fewshot: 1\n";
    let prompt = |multiturn: bool, extra: &str| {
        let style = PromptStyle {
            chat_template: Some(&render),
            fewshot_as_multiturn: multiturn,
            system_instruction: Some("Be brief.".into()),
        };
        let options = RunOptions { style, ..RunOptions::default() };
        let mut model = Alphabet::default();
        let splits = [("test", test.clone()), ("train", train.clone())];
        run(&format!("{yaml}{extra}"), &mut model, &splits, &options).unwrap();
        model.prompts.remove(0)
    };
    assert_eq!(prompt(true, ""), "<system>Be brief.<user>n<assistant>b<user>x<assistant>a");
    assert_eq!(prompt(false, ""), "<system>Be brief.<user>n b\n\nx<assistant>a");
    // The answer is begun: no header is asked for, and the delimiter stays.
    assert_eq!(
        prompt(true, "gen_prefix: 'So:'\n"),
        "<system>Be brief.<user>n<assistant>So: b<user>x<assistant>So: a"
    );
}

#[test]
fn generated_answers_are_filtered_and_compared() {
    let yaml = r##"
task: g
dataset_path: d
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
repeats: 3
generation_kwargs: {until: ["\n"], max_gen_toks: 8}
filter_list:
  - name: vote
    filter: [{function: regex, regex_pattern: "(\\d+)"}, {function: majority_vote}, {function: take_first}]
  - name: first
    filter: [{function: take_first}]
metric_list:
  - metric: exact_match
  - metric: bleu
"##;
    let mut model =
        Alphabet { answers: ["is 3", "it is 4", "so 4"].map(String::from).to_vec(), ..Alphabet::default() };
    let rows = json!([{"q": "x", "a": "4"}, {"q": "y", "a": "is 3"}]);
    let options = RunOptions { log_samples: true, bootstrap_iterations: 100, ..RunOptions::default() };
    let result = run(yaml, &mut model, &[("test", rows)], &options).unwrap();
    assert_eq!(value(&result, "exact_match", "vote"), 0.5);
    assert_eq!(value(&result, "exact_match", "first"), 0.5);
    assert!(result.metrics.iter().any(|m| m.name == "bleu" && m.stderr.is_some()));
    assert_eq!(result.logged[0].fields["resps"], json!([["is 3", "it is 4", "so 4"]]));
    assert_eq!(result.logged[0].fields["filtered_resps"], json!(["4"]));
    assert_eq!(result.logged[2].fields["filter"], "first");
    let results = Results::new(vec![result], vec![]);
    assert_eq!(results.json()["results"]["g"]["exact_match,vote"], 0.5);
}

#[test]
fn perplexities_of_texts_and_of_last_words() {
    let yaml = "task: r\ndataset_path: d\ntest_split: test\noutput_type: loglikelihood_rolling\n\
                doc_to_text: ''\ndoc_to_target: '{{text}}'\n";
    let rows = json!([{"text": "ab ab"}, {"text": "b"}]);
    let result = run(yaml, &mut Alphabet::default(), &[("test", rows)], &RunOptions::default()).unwrap();
    // L = -(1+2+1+2) - 2 = -8 over 3 words and 6 bytes.
    assert!((value(&result, "word_perplexity", "none") - (8.0f64 / 3.0).exp()).abs() < 1e-12);
    assert!((value(&result, "bits_per_byte", "none") - 8.0 / 6.0 / 2f64.ln()).abs() < 1e-12);
    let yaml = "task: l\ndataset_path: d\ntest_split: test\noutput_type: loglikelihood\n\
                doc_to_text: '{{c}}'\ndoc_to_target: ' {{w}}'\n";
    let rows = json!([{"c": "x", "w": "a"}, {"c": "x", "w": "b"}]);
    let options = RunOptions { bootstrap_iterations: 100, ..RunOptions::default() };
    let result = run(yaml, &mut Alphabet::default(), &[("test", rows)], &options).unwrap();
    assert_eq!(value(&result, "acc", "none"), 0.5);
    assert!((value(&result, "perplexity", "none") - 1.5f64.exp()).abs() < 1e-12);
}

#[test]
fn what_cannot_be_done_is_said() {
    let rows = |rows: Value| [("test", rows)];
    let said = |yaml: &str, data: Value, options: &RunOptions<'_>| {
        run(yaml, &mut Alphabet::default(), &rows(data), options).unwrap_err().to_string()
    };
    let plain = RunOptions::default();
    let good = json!({"q": "x", "options": ["a", "b"], "gold": 0});
    let acc = choice(&["acc"]);
    let error = said(&acc, json!([good, {"q": "x", "gold": 0}]), &plain);
    assert!(error.contains("document 1 of split `test`: there is no field `options`"), "{error}");
    assert!(error.contains("`doc_to_choice` in ") && error.contains("t.yaml:7"), "{error}");
    let error = said(&acc.replace("{{q}}", "{{question}}"), json!([good]), &plain);
    assert!(
        error.contains("document 0 of split `test`: there is no field `question`; ")
            && error.contains("q, options, gold"),
        "{error}"
    );
    let error = task(&acc.replace("{{q}}", "{{q")).unwrap_err().to_string();
    assert!(error.contains("t.yaml:6: the template of `doc_to_text` is no valid Jinja"), "{error}");
    assert!(said(&acc, json!([]), &plain).contains("split `test` has no documents"));
    let shots = RunOptions { num_fewshot: Some(3), ..RunOptions::default() };
    assert!(said(&acc, json!([good]), &shots).contains("only 1; ask for fewer"));
    let error = said(&format!("{acc}training_split: train\n"), json!([good]), &shots);
    assert!(error.contains("no split train"), "{error}");
    let mut broken = Alphabet { is_broken: true, ..Alphabet::default() };
    let error = run(&acc, &mut broken, &rows(json!([good])), &plain).unwrap_err();
    assert!(matches!(error, EvalError::NotANumber { index: 0, .. }), "{error}");
    for (yaml, expected) in [
        (acc.replace("doc_to_choice: options\n", ""), "without `doc_to_choice`"),
        (choice(&["bleu"]), "there is no metric `bleu` for `multiple_choice`"),
        (acc.replace("multiple_choice", "multiple_choices"), "it must be loglikelihood,"),
        (format!("{acc}num_fewshot: many\n"), "it must be a whole number"),
        (format!("{acc}doc_to_image: x\n"), "pictures"),
        (format!("{acc}doc_to_txt: x\n"), "no such key of a task"),
        (format!("{acc}fewshot_config: {{fewshot_indices: [1]}}\n"), "not supported"),
        (format!("{acc}class: !function task.Squad\n"), "there is no Python here"),
    ] {
        let error = task(&yaml).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let long =
        RunOptions { gen_kwargs: json!({"max_gen_toks": 600}).as_object().unwrap().clone(), ..plain.clone() };
    let generate = "task: g\ndataset_path: d\ntest_split: test\ndoc_to_text: q\ndoc_to_target: q\n";
    assert!(
        said(generate, json!([good]), &long).contains("generates up to 600 tokens, and the model takes 500")
    );
    let beams = RunOptions { gen_kwargs: json!({"num_beams": 2}).as_object().unwrap().clone(), ..plain };
    assert!(said(generate, json!([good]), &beams).contains("`num_beams`"));
}

#[test]
fn long_prompts_lose_their_beginning_and_are_counted() {
    let rows = json!([{"q": "z".repeat(600), "options": ["a", "b"], "gold": 0}]);
    let mut model = Alphabet::default();
    let result = run(&choice(&["acc"]), &mut model, &[("test", rows)], &RunOptions::default()).unwrap();
    assert_eq!(result.truncated, 2);
    assert_eq!(model.prompts[0].len(), 501);
}
