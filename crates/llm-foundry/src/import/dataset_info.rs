//! LLaMA-Factory's data sets: names that `dataset_info.json` describes.
//!
//! Every key of an entry is carried over, has no meaning here, or is lost with the reason.

use super::draft::{Draft, Rows, is_off, is_on, texts};
use serde_json::{Map, Value, json};
use std::path::Path;

type File = Map<String, Value>;

/// What becomes of a number of rows for evaluation.
const ALL_EVALUATED: &str = "of evaluation data all rows are read";

/// `stage: pt`: plain texts, without a template.
pub(super) fn is_pretraining(file: &File) -> bool {
    file.get("stage").and_then(Value::as_str) == Some("pt")
}

/// How several data sets become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixing {
    /// One after the other.
    Concat,
    /// By turns, until one or all are used up.
    Interleave { over: bool },
}

/// `dataset` and `eval_dataset`.
pub(super) fn dataset(draft: &mut Draft, key: &str, value: &Value, file: &File) {
    let dir = file.get("dataset_dir").and_then(Value::as_str).unwrap_or("data");
    let info = std::fs::read_to_string(Path::new(dir).join("dataset_info.json")).ok();
    let info: Option<Value> = info.and_then(|text| serde_json::from_str(&text).ok());
    let (is_text, is_eval) = (is_pretraining(file), key == "eval_dataset");
    let mut found = Vec::new();
    for name in texts(value) {
        let mut rows = Rows { comment: key.into(), ..Rows::default() };
        match info.as_ref().and_then(|info| info.get(&name)) {
            Some(Value::Object(entry)) => {
                Entry { place: format!("{key}.{name}"), entry, is_text, is_eval }
                    .carry(draft, dir, &mut rows);
            }
            _ if Path::new(&name).exists() => rows.paths.push(name),
            _ => {
                let why = format!("{dir}/dataset_info.json does not say what that is: name its file");
                draft.lose(key, &json!(name), &why);
                rows.paths.push(name);
            }
        }
        if is_text {
            rows.format = Some("text");
        }
        found.push(rows);
    }
    let most = file.get("max_samples").and_then(Value::as_u64);
    if !is_eval {
        for rows in &mut found {
            rows.take = most.into_iter().chain(rows.take).min();
        }
        mix(draft, &mut found, file);
        draft.rows = found;
    } else {
        if let Some(most) = most.filter(|_| !found.is_empty()) {
            draft.lose("max_samples", &json!(most), ALL_EVALUATED);
        }
        draft.eval = found;
    }
}

/// `mix_strategy` and `interleave_probs` become weights.
fn mix(draft: &mut Draft, found: &mut [Rows], file: &File) {
    let probs: Vec<f64> = match file.get("interleave_probs") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_f64).collect(),
        Some(value) => texts(value).iter().filter_map(|p| p.parse().ok()).collect(),
        None => Vec::new(),
    };
    let named = file.get("mix_strategy").and_then(Value::as_str).unwrap_or("concat");
    let mixing = match named {
        "interleave_under" => Mixing::Interleave { over: false },
        "interleave_over" => Mixing::Interleave { over: true },
        _ => Mixing::Concat,
    };
    if found.len() < 2 {
        return;
    }
    let Mixing::Interleave { over } = mixing else {
        if !probs.is_empty() {
            let why = "it is for `mix_strategy: interleave_…`; here the data sets follow each other";
            draft.lose("interleave_probs", &json!(probs), why);
        }
        return;
    };
    let fits = probs.len() == found.len() && probs.iter().all(|p| *p > 0.0);
    if !fits && !probs.is_empty() {
        let why =
            format!("{} data sets need as many numbers above 0: they are mixed evenly here", found.len());
        draft.lose("interleave_probs", &json!(probs), &why);
    }
    for (index, rows) in found.iter_mut().enumerate() {
        rows.weight = Some(if fits { probs[index] } else { 1.0 });
    }
    let stopping = if over { "all_exhausted" } else { "first_exhausted" };
    draft.set("data.stopping_strategy", json!(stopping), "mix_strategy");
}

/// An entry of `dataset_info.json`.
struct Entry<'a> {
    /// Where it is, for notes.
    place: String,
    entry: &'a File,
    is_text: bool,
    is_eval: bool,
}

impl Entry<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn carry(&self, draft: &mut Draft, dir: &str, rows: &mut Rows) {
        let is_hub = self.text("hf_hub_url").is_some();
        match (self.text("hf_hub_url"), self.text("file_name")) {
            (Some(url), _) => rows.paths.push(url.to_owned()),
            (None, Some(name)) => rows.paths.push(format!("{dir}/{name}")),
            (None, None) => {
                let entry = Value::Object(self.entry.clone());
                draft.lose(&self.place, &entry, "it has neither `file_name` nor `hf_hub_url`");
                rows.paths.push("path/to/data.jsonl".into());
            }
        }
        if is_hub && self.is_eval && self.text("split").is_none() {
            // Their default; ours is `test` there.
            rows.part.push(("split", "train".into()));
        }
        let chats = self.text("formatting") == Some("sharegpt");
        for (key, value) in self.entry {
            let place = format!("{}.{key}", self.place);
            let mut lose = |why: &str| draft.lose(&place, value, why);
            match key.as_str() {
                _ if value.is_null() || is_off(value) => {}
                "hf_hub_url" | "file_name" if self.text(key).is_some() => {}
                "formatting" if ["alpaca", "sharegpt"].map(Some).contains(&self.text(key)) => {}
                "formatting" => lose("the shape is recognised from the first example"),
                "ranking" if is_on(value) => draft.refuse(format!(
                    "`{place}` is true: preference data is for another method than fine-tuning on examples, and that is \
                     not carried over"
                )),
                "subset" | "split" | "revision" if is_hub && value.is_string() => {
                    let ours = match key.as_str() {
                        "subset" => "name",
                        "split" => "split",
                        _ => "revision",
                    };
                    rows.part.push((ours, value.as_str().unwrap_or_default().to_owned()));
                }
                "split" if value == "train" => {}
                "subset" | "split" | "revision" => lose("the files that are named are used whole"),
                "num_samples" if self.is_eval => lose(ALL_EVALUATED),
                "num_samples" if value.is_u64() => rows.take = value.as_u64(),
                "columns" | "tags" if value.is_object() => {}
                _ => lose("no counterpart"),
            }
        }
        let columns = self.entry.get("columns").and_then(Value::as_object);
        match (self.is_text, chats) {
            (true, _) => self.texts(draft, columns, rows),
            (false, true) => self.conversations(draft, columns, rows),
            (false, false) => {
                rows.format = Some("alpaca");
                let known = [
                    ("prompt", "instruction"),
                    ("query", "input"),
                    ("response", "output"),
                    ("history", "history"),
                    ("system", "system"),
                ];
                self.columns(draft, columns, &known, rows);
                self.lose_tags(draft);
            }
        }
    }

    /// Columns under our names; those that have none are lost.
    fn columns(
        &self,
        draft: &mut Draft,
        columns: Option<&File>,
        known: &[(&str, &'static str)],
        rows: &mut Rows,
    ) {
        for (key, value) in columns.into_iter().flatten() {
            let name = value.as_str().filter(|name| !name.is_empty());
            let ours = known.iter().find(|(theirs, _)| theirs == key).map(|(_, ours)| *ours);
            match (ours, name) {
                (_, None) => {}
                (Some(ours), Some(name)) if ours == name => {}
                (Some(ours), Some(name)) => rows.columns.push((ours, name.to_owned())),
                (None, Some(_)) => {
                    let place = format!("{}.columns.{key}", self.place);
                    draft.lose(&place, value, "no counterpart in rows of this shape");
                }
            }
        }
    }

    /// Of a row of plain text only the prompt is read.
    fn texts(&self, draft: &mut Draft, columns: Option<&File>, rows: &mut Rows) {
        let prompt = columns.and_then(|columns| columns.get("prompt")).and_then(Value::as_str);
        let field = prompt.unwrap_or("instruction");
        rows.text_field = (field != "text").then(|| field.to_owned());
        let rest: File = columns.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let rest: File = rest.into_iter().filter(|(key, _)| key != "prompt").collect();
        self.columns(draft, Some(&rest), &[], rows);
        if self.text("formatting") == Some("sharegpt") {
            let place = format!("{}.formatting", self.place);
            draft.lose(&place, &json!("sharegpt"), "pre-training here reads one text of a row");
        }
        self.lose_tags(draft);
    }

    fn lose_tags(&self, draft: &mut Draft) {
        for (key, value) in self.entry.get("tags").and_then(Value::as_object).into_iter().flatten() {
            draft.lose(&format!("{}.tags.{key}", self.place), value, "rows of this shape have no roles");
        }
    }

    /// Conversations, by the names of their keys and roles.
    fn conversations(&self, draft: &mut Draft, columns: Option<&File>, rows: &mut Rows) {
        let tags = self.entry.get("tags").and_then(Value::as_object);
        let tag = |key: &str| tags.and_then(|tags| tags.get(key)).and_then(Value::as_str);
        let names = (tag("role_tag").unwrap_or("from"), tag("content_tag").unwrap_or("value"));
        let is_messages = names == ("role", "content");
        rows.format = Some(if is_messages { "messages" } else { "sharegpt" });
        if !is_messages && names != ("from", "value") {
            let why = "messages must be {role, content} or {from, value}";
            draft.lose(&format!("{}.tags.role_tag", self.place), &json!([names.0, names.1]), why);
        }
        // What each role may be called here, the way it is called there by default first.
        let roles: [(&str, &[&str]); 5] = match is_messages {
            true => [
                ("user_tag", &["user"]),
                ("assistant_tag", &["assistant"]),
                ("observation_tag", &["tool"]),
                ("function_tag", &[]),
                ("system_tag", &["system"]),
            ],
            false => [
                ("user_tag", &["human", "user"]),
                ("assistant_tag", &["gpt", "assistant", "model", "chatgpt", "bing", "bard"]),
                ("observation_tag", &["observation", "tool", "function_response"]),
                ("function_tag", &[]),
                ("system_tag", &["system"]),
            ],
        };
        for (key, value) in tags.into_iter().flatten() {
            let known = roles.iter().find(|(name, _)| name == key).map(|(_, known)| *known);
            let is_known = known.is_some_and(|known| value.as_str().is_some_and(|tag| known.contains(&tag)));
            if !["role_tag", "content_tag"].contains(&key.as_str()) && !is_known && !value.is_null() {
                let known = known.filter(|known| !known.is_empty());
                let why = known.map_or_else(
                    || "no role here is called so".to_owned(),
                    |known| format!("that role is called {} here", known.join(", ")),
                );
                draft.lose(&format!("{}.tags.{key}", self.place), value, &why);
            }
        }
        // Rows of messages have them in `messages` or in `conversations`.
        let list = columns.and_then(|columns| columns.get("messages")).and_then(Value::as_str);
        let list = list.unwrap_or("conversations");
        let found_there: &[&'static str] =
            if is_messages { &["messages", "conversations"][..] } else { &["conversations"][..] };
        if !found_there.contains(&list) {
            rows.columns.push((found_there[0], list.to_owned()));
        }
        let rest: File = columns.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let rest: File = rest.into_iter().filter(|(key, _)| key != "messages").collect();
        let known: &[(&str, &'static str)] =
            if is_messages { &[("tools", "tools")] } else { &[("system", "system"), ("tools", "tools")] };
        self.columns(draft, Some(&rest), known, rows);
    }
}
