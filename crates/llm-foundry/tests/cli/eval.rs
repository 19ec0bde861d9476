//! `eval`: tasks of a user's on the tiny model, files in lm_eval's format, comparisons, and what is refused.

use crate::support::{Room, tiny_model};
use serde_json::{Value, json};

const TASK: &str = r#"
task: animals
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
training_split: train
test_split: test
num_fewshot: 2
output_type: multiple_choice
doc_to_text: "The {{animal}} is"
doc_to_choice: [here, there, "far away"]
doc_to_target: gold
metric_list:
  - metric: acc
  - metric: acc_norm
"#;
const ANSWERS: &str = r#"
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl}}
test_split: test
doc_to_text: "The {{animal}}"
doc_to_target: "{{gold}}"
generation_kwargs: {until: ["."], max_gen_toks: 4}
metric_list:
  - metric: exact_match
"#;
const GROUP: &str =
    "group: both\ntask: [animals]\naggregate_metric_list: [{metric: acc}]\nmetadata: {version: 1}\n";

fn model() -> &'static str {
    tiny_model().to_str().expect("UTF-8")
}

/// A room with two tasks, a group and their data.
fn room() -> Room {
    let room = Room::new();
    write_tasks(&room);
    room
}

/// Two tasks (`animals` and `answers`) and a group of them in `tasks`, with their data.
pub(crate) fn write_tasks(room: &Room) {
    let lines = |count: usize| {
        let names = ["cat", "dog", "bird", "fish", "horse"];
        (0..count)
            .map(|i| format!("{}\n", json!({"animal": names[i % 5], "gold": i % 3})))
            .collect::<String>()
    };
    room.write("tasks/animals.yaml", TASK);
    room.write("tasks/answers.yaml", ANSWERS);
    room.write("tasks/group.yaml", GROUP);
    room.write("test.jsonl", lines(7));
    room.write("train.jsonl", lines(20));
}

fn json_results(room: &Room, more: &[&str]) -> Value {
    let args = ["eval", model(), "--include-path", "tasks", "--json", "--dtype", "float32", "--tasks"];
    let said = room.foundry(&[&args[..], more].concat()).expect_done();
    serde_json::from_str(&said.out).expect("one JSON object")
}

#[test]
fn results_and_samples_are_files_of_lm_evals_form() {
    let room = room();
    let top = json_results(&room, &["both,answers", "--limit", "4", "--log-samples", "-o", "out"]);
    let animals = &top["results"]["animals"];
    let acc = animals["acc,none"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&acc) && animals["acc_stderr,none"].is_number(), "{animals}");
    assert_eq!(top["groups"]["both"]["acc,none"].as_f64(), Some(acc), "the mean of one task");
    assert_eq!(top["n-samples"]["animals"], json!({"original": 7, "effective": 4}));
    assert_eq!((&top["n-shot"]["animals"], &top["n-shot"]["answers"]), (&json!(2), &json!(0)));
    // Those of a file of lm_eval 0.4.13, and two counts that it has not.
    let mut keys: Vec<&str> = "results groups group_subtasks configs versions n-shot higher_is_better n-samples config \
        git_hash date pretty_env_info transformers_version lm_eval_version upper_git_hash tokenizer_pad_token \
        tokenizer_eos_token tokenizer_bos_token eot_token_id max_length task_hashes model_source model_name \
        model_name_sanitized system_instruction system_instruction_sha fewshot_as_multiturn chat_template \
        chat_template_sha total_evaluation_time_seconds truncated unanswerable"
        .split_whitespace()
        .collect();
    keys.sort_unstable();
    let mut own: Vec<&str> = top.as_object().expect("an object").keys().map(String::as_str).collect();
    own.sort_unstable();
    assert_eq!(own, keys);
    assert_eq!(top["config"]["model_args"], json!({"pretrained": model(), "dtype": "float32"}));
    let metadata = json!({"pretrained": model(), "dtype": "float32", "config_source": "tasks/animals.yaml"});
    assert_eq!(top["configs"]["animals"]["metadata"], metadata);
    assert_eq!((&top["fewshot_as_multiturn"], &top["config"]["gen_kwargs"]), (&Value::Null, &json!({})));
    assert_eq!((&top["truncated"]["animals"], &top["unanswerable"]["animals"]), (&json!(0), &json!(0)));
    let dir = room.path("out").join(model().replace('/', "__"));
    let names: Vec<String> = std::fs::read_dir(&dir)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    let named = |start: &str| names.iter().find(|name| name.starts_with(start)).expect("written");
    let results: Value =
        serde_json::from_slice(&std::fs::read(dir.join(named("results_"))).expect("read")).expect("JSON");
    assert_eq!(results["results"], top["results"]);
    let samples = std::fs::read_to_string(dir.join(named("samples_animals_"))).expect("read");
    let sample: Value = serde_json::from_str(samples.lines().next().expect("a line")).expect("JSON");
    let prompt = sample["arguments"]["gen_args_0"]["arg_0"].as_str().expect("a text");
    assert!(prompt.ends_with("\n\nThe cat is") && prompt.matches("\n\n").count() == 2, "{prompt:?}");
    assert_eq!(sample["arguments"]["gen_args_2"]["arg_1"], " far away");
    assert!(names.iter().any(|name| name.starts_with("samples_answers_")));
}

#[test]
fn an_adapter_is_compared_with_its_base_and_with_a_file() {
    let room = room();
    room.lora_run("  max_steps: 30\n  save_strategy: \"no\"\n");
    room.foundry(&["train", "config.yaml"]).expect_done();
    room.write("train.jsonl", room.read("test.jsonl"));
    let top = json_results(&room, &["animals", "--adapter", "run", "--compare", "base", "-o", "out"]);
    let compared = &top["comparison"]["animals"]["acc,none"];
    let base = json_results(&room, &["animals"]);
    assert_eq!(compared["before"], base["results"]["animals"]["acc,none"]);
    assert_eq!(compared["after"], top["results"]["animals"]["acc,none"]);
    let args = ["eval", model(), "--include-path", "tasks", "--tasks", "animals", "--compare", "out"];
    let table = room.foundry(&args).expect_done();
    assert!(table.out.contains("Before") && table.out.contains("Difference"), "{}", table.out);
    let args = ["eval", model(), "--include-path", "tasks", "--tasks", "animals", "--compare", "base"];
    room.foundry(&args).expect_refusal(&["--adapter DIR"]);

    // What the base reached is kept where the adapter cannot be loaded.
    room.write("run/adapter_model.safetensors", "spoilt");
    let with = ["--adapter", "run", "-o", "kept"];
    let said = room.foundry(&[&args[..], &with].concat()).expect_refusal(&["adapter_model.safetensors"]);
    assert!(said.out.contains("animals") && said.out.contains("acc_norm"), "{}", said.out);
    let dir = room.path("kept").join(model().replace('/', "__"));
    assert_eq!(std::fs::read_dir(&dir).expect("written").count(), 1);
}

#[test]
fn data_is_found_by_the_names_of_its_files() {
    let room = Room::new();
    let choice = |answer: &str| format!("Which?,one,two,three,four,{answer}\n");
    room.write("mmlu/test/anatomy_test.csv", choice("B") + &choice("A"));
    room.write("mmlu/dev/anatomy_dev.csv", choice("C"));
    room.write("flat/gsm8k_test.jsonl", json!({"question": "1+1?", "answer": "#### 2"}).to_string());
    let args =
        ["eval", model(), "--tasks", "mmlu_anatomy,gsm8k", "--data-dir", "mmlu=mmlu", "--data-dir", "flat"];
    let more = ["--num-fewshot", "0", "--gen-kwargs", "max_gen_toks=4", "--json"];
    let said = room.foundry(&[&args[..], &more[..]].concat()).expect_done();
    let top: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(top["n-samples"]["mmlu_anatomy"]["original"], 2);
    assert!(top["results"]["gsm8k"]["exact_match,strict-match"].is_number(), "{}", top["results"]["gsm8k"]);
    // Five examples of a split with one document, and of one that is not there.
    let args = ["eval", model(), "--tasks", "mmlu_anatomy", "--data-dir", "mmlu=mmlu", "--num-fewshot", "5"];
    room.foundry(&args).expect_refusal(&["only 1"]);
    room.foundry(&["eval", model(), "--tasks", "gsm8k", "--data-dir", "flat"])
        .expect_refusal(&["split `train`", "--data-dir"]);
    room.foundry(&["eval", model(), "--tasks", "piqa", "--data-dir", "nowhere"]).expect_refusal(&["nowhere"]);
}

#[test]
fn wrong_tasks_and_options_are_refused() {
    let room = room();
    let refused = |args: &[&str], words: &[&str]| {
        room.foundry(&[&["eval", model(), "--include-path", "tasks"], args].concat()).expect_refusal(words);
    };
    refused(&["--tasks", "animal"], &["no task, group or tag `animal`", "did you mean animals"]);
    room.write(
        "tasks/broken.yaml",
        TASK.replace("{{animal}}", "{{animal").replace("task: animals", "task: broken"),
    );
    refused(&["--tasks", "broken"], &["broken.yaml:9", "doc_to_text", "no valid Jinja"]);
    room.write("tasks/python.yaml", "task: python\nprocess_docs: !function utils.f\n");
    refused(&["--tasks", "python"], &["python.yaml:2", "utils.f", "no Python"]);
    refused(&["--tasks", "animals", "--limit", "0"], &["--limit"]);
    refused(&["--tasks", "animals", "--log-samples"], &["--output"]);
    refused(&["--tasks", "animals", "--compare", "none.json"], &["none.json"]);
    refused(&["--tasks", "answers", "--gen-kwargs", "num_beams=4"], &["num_beams", "no beam search"]);
    refused(&["--tasks", "answers", "--gen-kwargs", "max_gen_toks=999"], &["999", "256"]);
    room.write("test.jsonl", "{\"gold\": 0}\n");
    refused(&["--tasks", "animals"], &["task `animals`, document 0", "no field `animal`"]);
    let listed = room.foundry(&["eval", "--list-tasks"]).expect_done();
    assert!(listed.out.contains("group mmlu\n") && listed.out.contains("task  gsm8k\n"), "{}", listed.out);
}

#[test]
fn a_run_is_examined_on_its_way_and_at_its_end() {
    let room = room();
    room.lora_run("  max_steps: 3\n  save_steps: 2\n");
    room.write("questions.jsonl", room.read("test.jsonl"));
    room.write(
        "tasks/animals.yaml",
        TASK.replace("test.jsonl", "questions.jsonl").replace("num_fewshot: 2", "num_fewshot: 0"),
    );
    let more = "eval:\n  tasks: [both]\n  include_path: [tasks]\n  prompts: [\"Who are you?\", Hello]\n  steps: 2\n  max_new_tokens: 4\n";
    room.write("config.yaml", room.read("config.yaml") + more);
    room.foundry(&["train", "config.yaml"]).expect_done();
    let lines = |name: &str| {
        let text = room.read(name);
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<Value>>()
    };
    let tasks = |step: u64| {
        let is_task = |line: &Value| line["event"] == "task" && line["step"] == step;
        lines("run/metrics.jsonl").into_iter().filter(is_task).collect::<Vec<Value>>()
    };
    assert_eq!(tasks(1).len(), 0);
    for step in [2, 3] {
        let found = tasks(step);
        let names: Vec<&str> = found.iter().map(|line| line["task"].as_str().expect("a name")).collect();
        assert_eq!(names, ["both", "animals", "animals"], "{found:?}");
        assert!(
            found.iter().all(|line| line["value"].is_number() && line["stderr"].is_number()),
            "{found:?}"
        );
    }
    let samples = lines("run/samples.jsonl");
    let steps: Vec<u64> = samples.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [0, 0, 2, 2, 3, 3], "before the first step, on the way and at the end");
    assert!(samples.iter().all(|line| line["text"].is_string()) && samples[1]["prompt"] == "Hello");
    // The result examined afterwards says the same, and a resumed run writes its lines once.
    let top = json_results(&room, &["animals", "--adapter", "run"]);
    let last = tasks(3);
    let acc =
        last.iter().find(|line| line["task"] == "animals" && line["metric"] == "acc").expect("examined");
    assert_eq!(acc["value"], top["results"]["animals"]["acc,none"]);
    room.foundry(&["train", "config.yaml", "--resume", "run/checkpoint-2"]).expect_done();
    assert_eq!((tasks(3).len(), lines("run/samples.jsonl").len()), (3, 6));

    let refused = |key: &str, words: &[&str]| {
        let config = ["train", "config.yaml", key, "output_dir=other"];
        room.foundry(&config).expect_refusal(words);
    };
    refused("eval.tasks=[animal]", &["eval.tasks", "did you mean animals"]);
    refused("eval.steps=0", &["eval.steps"]);
    refused("eval.limit=1.5", &["eval.limit"]);
    refused("eval.data_dir=[nowhere]", &["nowhere"]);
    // Found before the first step, and not hours later.
    refused("eval.max_new_tokens=1000", &["eval.prompts", "1000", "max_position_embeddings"]);
    room.write("questions.jsonl", "{\"gold\": 0}\n");
    refused("training.max_steps=3", &["eval.tasks", "document 0", "animal"]);
    std::fs::remove_file(room.path("questions.jsonl")).expect("it was there");
    refused("training.max_steps=3", &["eval.tasks", "questions.jsonl"]);
    assert!(!room.path("other").exists());
}

#[test]
fn a_benchmark_can_decide_which_model_is_the_best() {
    let room = room();
    room.lora_run("  max_steps: 6\n  save_strategy: best\n  load_best_model_at_end: true\n  early_stopping_patience: 2\n");
    room.write("questions.jsonl", room.read("test.jsonl"));
    room.write(
        "tasks/animals.yaml",
        TASK.replace("test.jsonl", "questions.jsonl").replace("num_fewshot: 2", "num_fewshot: 0"),
    );
    let eval = "eval:\n  tasks: [animals]\n  include_path: [tasks]\n  steps: 1\n";
    room.write("config.yaml", room.read("config.yaml") + eval);
    let by = |metric: &str| format!("training.metric_for_best_model={metric}");
    room.foundry(&["train", "config.yaml", &by("animals/acc")]).expect_done();
    let text = room.read("run/metrics.jsonl");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let acc: Vec<(u64, f64)> = lines
        .filter(|line| line["event"] == "task" && line["metric"] == "acc")
        .map(|line| (line["step"].as_u64().expect("a step"), line["value"].as_f64().expect("a number")))
        .collect();
    let mut best = acc[0];
    let mut last = 6;
    for &(step, value) in &acc[1..] {
        if value > best.1 {
            best = (step, value);
        } else if step == best.0 + 2 {
            last = step;
            break;
        }
    }
    assert_eq!(acc.last().map(|(step, _)| *step), Some(last), "two in a row were not better: {acc:?}");
    assert!(room.path(&format!("run/checkpoint-{}", best.0)).exists(), "{acc:?}");
    let refused = |args: &[&str], words: &[&str]| {
        room.foundry(&[&["train", "config.yaml", "output_dir=other"], args].concat()).expect_refusal(words);
    };
    refused(&[&by("animals/accc")], &["metric_for_best_model", "`animals` has acc, acc_norm"]);
    refused(&[&by("animal/acc")], &["did you mean animals/acc"]);
    refused(&[&by("animals/acc"), "eval.steps=null"], &["metric_for_best_model", "eval.steps"]);
    refused(&[&by("animals/acc"), "eval.tasks=[]"], &["metric_for_best_model", "eval.tasks"]);
}

#[test]
fn data_is_taken_from_where_it_was_said_or_not_at_all() {
    let room = room();
    let csv = "animal,gold\ncat,0\ndog,1\nbird,2\n";
    room.write("tables/animals_test.csv", csv);
    room.write("tables/animals_train.csv", csv);
    let args =
        ["animals", "--data-dir", "animals=tables", "--num-fewshot", "1", "--log-samples", "-o", "out"];
    let top = json_results(&room, &args);
    assert_eq!(top["n-samples"]["animals"]["effective"], 3);
    assert_eq!(top["configs"]["animals"]["num_fewshot"], 1);
    let refused = |args: &[&str], words: &[&str]| {
        let base = ["eval", model(), "--include-path", "tasks", "--tasks"];
        room.foundry(&[&base, args].concat()).expect_refusal(words);
    };
    refused(&["animals", "--data-dir", "animls=tables"], &["--data-dir", "`animls`", "animals"]);
    room.write("wrong/animals_test.csv", "animal,gold\ncat,7\ndog,8\n");
    refused(
        &["animals", "--data-dir", "animals=wrong", "--num-fewshot", "0"],
        &["none of the choices", "every other document"],
    );
    let few = ["animals", "--data-dir", "animals=wrong", "--num-fewshot", "0", "--limit", "1"];
    let top = json_results(&room, &few);
    assert_eq!(top["results"]["animals"]["acc,none"], 0.0, "the others may have a right answer");
    refused(&["piqa", "--data-dir", "tables"], &["--data-dir", "tables", "no file of split `validation`"]);
    refused(&["animals,gsm8k", "--gen-kwargs", "max_tok=5"], &["max_tok"]);
}
