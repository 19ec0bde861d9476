//! Selections of built-in tasks and of a user's folder.

use super::*;

fn select(library: &mut Library, names: &[&str]) -> Result<Selection, EvalError> {
    library.select(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
}

#[test]
fn every_builtin_task_is_sound() {
    let mut library = Library::builtin().unwrap();
    let names: Vec<String> = library.names().map(|(name, _)| name.to_owned()).collect();
    let selection = library.select(&names).unwrap();
    assert_eq!(selection.tasks.len(), 57 + builtin::FILES.len());
    let mmlu = selection.groups.iter().find(|group| group.name == "mmlu").unwrap();
    assert_eq!(
        mmlu.members.iter().map(Member::name).collect::<Vec<_>>(),
        ["mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"]
    );
    let stem = selection.groups.iter().find(|group| group.name == "mmlu_stem").unwrap();
    assert_eq!((stem.members.len(), stem.alias.as_str(), stem.version.as_str()), (19, "stem", "2"));
    assert_eq!(
        stem.metrics[0],
        AggregateMetric { metric: "acc".into(), filters: None, weight_by_size: true }
    );
}

#[test]
fn names_patterns_and_near_misses() {
    let mut library = Library::builtin().unwrap();
    let names = |selection: Selection| selection.tasks.into_iter().map(|task| task.name).collect::<Vec<_>>();
    assert_eq!(
        names(select(&mut library, &["piqa", "arc_*", "piqa"]).unwrap()),
        ["piqa", "arc_challenge", "arc_easy"]
    );
    let error = select(&mut library, &["hellaswagg"]).unwrap_err().to_string();
    assert!(error.contains("no task, group or tag `hellaswagg`; did you mean hellaswag?"), "{error}");
    assert!(matches!(select(&mut library, &["x*y"]), Err(EvalError::UnknownTask { .. })));
}

#[test]
fn folders_have_groups_tags_overrides_and_broken_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    write("base", "dataset_path: d\ntest_split: test\noutput_type: multiple_choice\ndoc_to_choice: [a, b]\n");
    write("deep/one.yaml", "include: ../base\ntask: one\ntag: [both]\n");
    write("two.yaml", "include: base\ntask: two\ntag: both\nnum_fewshot: 1\n");
    write(
        "g.yaml",
        "group: g\ntask:\n  - both\n  - task: two\n  - group: inner\n    task: [one]\n  - task: three\n    \
         output_type: loglikelihood\nnum_fewshot: 3\naggregate_metric_list: {metric: acc, filter_list: none}\n",
    );
    write("python.yaml", "include: base\ntask: python\nprocess_docs: !function utils.f\n");
    write("broken.yaml", "task: [\n");
    let mut library = Library::builtin().unwrap();
    library.add_path(dir.path()).unwrap();

    let selection = select(&mut library, &["g"]).unwrap();
    let names: Vec<&str> = selection.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["one", "two", "g::three"]);
    assert!(selection.tasks.iter().all(|task| task.num_fewshot == Some(3)), "the group's setting");
    let group = selection.groups.last().unwrap();
    assert_eq!(
        group.members.iter().map(Member::name).collect::<Vec<_>>(),
        ["one", "two", "g::inner", "g::three"]
    );
    assert_eq!(group.metrics[0].filters, Some(vec!["none".to_owned()]));

    let error = select(&mut library, &["python"]).unwrap_err();
    assert!(
        matches!(&error, EvalError::NeedsPython { task, function, .. } if task == "python" && function == "utils.f")
    );
    assert!(error.to_string().contains("python.yaml:3: `process_docs`"), "{error}");
    let error = select(&mut library, &["broken"]).unwrap_err().to_string();
    assert!(error.contains("broken.yaml") && error.contains("no valid YAML"), "{error}");
    // A broken file is not passed over for the built-in task of its name.
    write("mine.yaml", "task: piqa\ndescription: [\n");
    library.add_path(dir.path()).unwrap();
    let error = select(&mut library, &["piqa"]).unwrap_err().to_string();
    assert!(error.contains("mine.yaml"), "{error}");
    assert!(library.add_path(&dir.path().join("mine.yaml")).is_err(), "named directly");
    assert_eq!(select(&mut library, &["boolq"]).unwrap().tasks.len(), 1);
    let error = select(&mut library, &["one", "g"]).unwrap_err().to_string();
    assert!(error.contains("`one` is asked for twice"), "{error}");
    let file = dir.path().join("two.yaml").display().to_string();
    assert_eq!(select(&mut Library::default(), &[&file]).unwrap().tasks[0].name, "two");
}

#[test]
fn nothing_is_run_without_a_task_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "good.yaml",
        "task: s_good\ntag: s\ndataset_path: d\ntest_split: test\noutput_type: loglikelihood\n",
    );
    write("bad.yaml", "task: s_bad\ntag: s\ndescription: [\n");
    write("g.yaml", "group: g\ntask:\n  - s_good\n  - s_bad\n");
    write("python.yaml", "task: quoted\nprocess_docs: !function 'utils.f'\n");
    let mut library = Library::default();
    library.add_path(dir.path()).unwrap();
    for wanted in ["s", "s_*", "g", "s_bad"] {
        let error = select(&mut library, &[wanted]).unwrap_err().to_string();
        assert!(error.contains("bad.yaml") && error.contains("no valid YAML"), "{wanted}: {error}");
    }
    assert_eq!(select(&mut library, &["s_good"]).unwrap().tasks.len(), 1);
    assert_eq!(library.unreadable().count(), 1);
    let error = select(&mut library, &["s_god"]).unwrap_err().to_string();
    assert!(error.contains("did you mean s_good?") && error.contains("1 files of --include-path"), "{error}");
    let error = select(&mut library, &["quoted"]).unwrap_err();
    assert!(matches!(&error, EvalError::NeedsPython { function, .. } if function == "utils.f"), "{error}");
}

#[test]
fn pythons_functions_are_said_before_what_else_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let said = |text: &str| {
        let file = dir.path().join("t.yaml");
        std::fs::write(&file, format!("task: t\ndataset_path: d\n{text}")).unwrap();
        select(&mut Library::default(), &[&file.display().to_string()]).map(|_| ()).map_err(|e| e.to_string())
    };
    let python = "is the Python function `utils.f`";
    let filter = "filter_list: [{name: a, filter: [{function: !function utils.f}]}]\n";
    assert!(said(filter).unwrap_err().contains(python));
    let metric = "metric_list: [{metric: !function utils.f, ignore_punctuation: \"true - x\"}]\n";
    assert!(said(metric).unwrap_err().contains(python));
    let aggregation = "metric_list: [{metric: wer, aggregation: !function utils.f}]\n";
    assert!(said(aggregation).unwrap_err().contains(python));
    // What no function of lm_eval reads is no mistake.
    let choices = "output_type: multiple_choice\ndoc_to_choice: [a, b]\n";
    let weighted = "metric_list: [{metric: acc, weight_by_size: true}, {metric: f1, average: macro}]\n";
    said(&format!("{choices}{weighted}")).unwrap();
    said("metric_list: [{metric: ter}]\n").unwrap();
    assert!(
        said("metric_list: [{metric: exact_match, weight_by_size: 1}]\n")
            .unwrap_err()
            .contains("weight_by_size")
    );
}
