//! A Modelfile for Ollama: the chat format as a Go template where it can be told and checked, stop tokens, settings.

use crate::failure::{Failure, Outcome};
use foundry_data::Message;
use foundry_data::chat::ChatTemplate;
use foundry_formats::{ModelFiles, Tokenizer};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Texts that no template contains, to find where a message's own text stands.
const MARKS: [&str; 4] = ["SYSTEMTEXT7Q", "USERTEXT7QA", "ANSWERTEXT7Q", "USERTEXT7QB"];

/// The Modelfile for `gguf`, a file name in the same directory, and the name of its licence.
pub(super) fn modelfile(
    files: &ModelFiles,
    tokenizer: &Tokenizer,
    (gguf, license): (&str, Option<&str>),
    warnings: &mut Vec<String>,
) -> Outcome<String> {
    let mut text = format!("FROM ./{gguf}\n");
    if let Some(source) = tokenizer.chat_template() {
        let template = ChatTemplate::compile(source, tokenizer.special_tokens()).map_err(Failure::input)?;
        let bos = tokenizer.bos_token().filter(|_| tokenizer.adds_bos()).unwrap_or_default();
        match ChatFormat::find(&template, bos) {
            Some(format) => format.write(&mut text),
            None => warnings.push(
                "the chat template cannot be said in Ollama's terms; the Modelfile leaves it to Ollama, which reads the \
                 one in the GGUF file: compare an answer with `llm-foundry chat`"
                    .into(),
            ),
        }
    }
    let mut stops: Vec<String> =
        files.eos_token_ids().into_iter().filter_map(|id| tokenizer.id_to_token(id)).collect();
    stops.extend(tokenizer.eos_token().map(str::to_owned));
    let mut seen = std::collections::HashSet::new();
    for stop in stops.into_iter().filter(|stop| seen.insert(stop.clone())) {
        let _ = writeln!(text, "PARAMETER stop {}", quoted(&stop));
    }
    let settings = files.generation_config.as_ref();
    let draws = settings.and_then(|s| s.get("do_sample")).and_then(Value::as_bool).unwrap_or(false);
    for (theirs, ours) in [
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("min_p", "min_p"),
        ("repeat_penalty", "repetition_penalty"),
    ] {
        if let Some(value) = settings.and_then(|s| s.get(ours)).filter(|v| v.is_number() && draws) {
            let _ = writeln!(text, "PARAMETER {theirs} {value}");
        }
    }
    // Three quotation marks would end it.
    if let Some(license) = license.filter(|license| !license.contains("\"\"\"")) {
        let _ = writeln!(text, "LICENSE \"\"\"{license}\"\"\"");
    }
    Ok(text)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// What stands around messages of each role.
#[derive(Debug, PartialEq)]
struct ChatFormat {
    before_system: String,
    after_system: String,
    before_user: String,
    /// Up to where the assistant speaks.
    after_user: String,
    after_assistant: String,
    /// The system message that the template puts where there is none.
    default_system: Option<String>,
}

impl ChatFormat {
    /// Derives the format from two renderings, and proves it on others; `None` if it does not hold.
    fn find(template: &ChatTemplate, bos: &str) -> Option<Self> {
        let render = |roles: &[(&str, &str)]| {
            let message = |(role, text): &(&str, &str)| Message {
                role: (*role).into(),
                content: json!(text),
                rest: Map::new(),
                learn: None,
            };
            let messages: Vec<Message> = roles.iter().map(message).collect();
            let text = template.render(&messages, None, true, &Map::new()).ok()?.text;
            Some(text.strip_prefix(bos).unwrap_or(&text).to_owned())
        };
        let [system, first, answer, second] = MARKS;
        let long = [("system", system), ("user", first), ("assistant", answer), ("user", second)];
        let text = render(&long)?;
        let (before_system, rest) = text.split_once(system)?;
        let (between, rest) = rest.split_once(first)?;
        let (after_user, rest) = rest.split_once(answer)?;
        let (turn, last) = rest.split_once(second)?;
        if last != after_user {
            return None; // the generation prompt is not how an answer begins
        }
        let text = render(&[("user", first)])?;
        let (alone, _) = text.split_once(first)?;
        let before_user = common_end(common_end(between, turn), alone);
        let mut format = Self {
            before_system: before_system.to_owned(),
            after_system: between.strip_suffix(before_user)?.to_owned(),
            before_user: before_user.to_owned(),
            after_user: after_user.to_owned(),
            after_assistant: turn.strip_suffix(before_user)?.to_owned(),
            default_system: None,
        };
        let default = alone.strip_suffix(before_user)?;
        if !default.is_empty() {
            let inner = default.strip_prefix(before_system)?.strip_suffix(format.after_system.as_str())?;
            format.default_system = Some(inner.to_owned());
        }
        let holds = |roles: &[(&str, &str)]| render(roles).is_some_and(|text| text == format.compose(roles));
        let no_system = &long[1..];
        let longer = [&long[..], &[("assistant", "It is 42.\nReally."), ("user", "Why, then?")]].concat();
        let is_sayable = format.parts().iter().all(|part| !part.contains("{{") && !part.contains("\"\"\""));
        (is_sayable && holds(&long) && holds(no_system) && holds(&longer) && holds(&long[..2]))
            .then_some(format)
    }

    fn parts(&self) -> [&str; 6] {
        [
            &self.before_system,
            &self.after_system,
            &self.before_user,
            &self.after_user,
            &self.after_assistant,
            self.default_system.as_deref().unwrap_or_default(),
        ]
    }

    /// What Ollama will make of a conversation.
    fn compose(&self, messages: &[(&str, &str)]) -> String {
        let mut text = String::new();
        let default = self.default_system.as_deref().map(|system| ("system", system));
        let default = default.filter(|_| messages.first().is_some_and(|(role, _)| *role != "system"));
        for (role, content) in default.iter().chain(messages) {
            let (before, after) = match *role {
                "system" => (&self.before_system, &self.after_system),
                "user" => (&self.before_user, &self.after_user),
                _ => (&String::new(), &self.after_assistant),
            };
            text.extend([before, *content, after]);
        }
        text
    }

    fn write(&self, out: &mut String) {
        let Self { before_system, after_system, before_user, after_user, after_assistant, .. } = self;
        let _ = writeln!(
            out,
            "TEMPLATE \"\"\"{{{{ range .Messages }}}}{{{{ if eq .Role \"system\" }}}}{before_system}{{{{ .Content }}}}\
             {after_system}{{{{ else if eq .Role \"user\" }}}}{before_user}{{{{ .Content }}}}{after_user}{{{{ else if eq \
             .Role \"assistant\" }}}}{{{{ .Content }}}}{after_assistant}{{{{ end }}}}{{{{ end }}}}\"\"\""
        );
        if let Some(system) = &self.default_system {
            let _ = writeln!(out, "SYSTEM \"\"\"{system}\"\"\"");
        }
    }
}

/// The longest text with which both end.
fn common_end<'a>(a: &'a str, b: &str) -> &'a str {
    let start = a.char_indices().map(|(at, _)| at).find(|&at| b.ends_with(&a[at..]));
    start.map_or("", |at| &a[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str, bos: &str) -> Option<ChatFormat> {
        ChatFormat::find(
            &ChatTemplate::compile(source, vec![("bos_token".into(), "<s>".into())]).expect("compiles"),
            bos,
        )
    }

    const CHATML: &str = "{% for m in messages %}{{'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n'}}\
        {% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif %}";

    #[test]
    fn chatml_is_found_with_and_without_a_default_system_message() {
        let plain = found(CHATML, "").expect("a format");
        assert_eq!(plain.before_user, "<|im_start|>user\n");
        assert_eq!(plain.after_user, "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(plain.default_system, None);
        let source = format!(
            "{{% if messages[0].role != 'system' %}}{{{{'<|im_start|>system\\nBe kind.<|im_end|>\\n'}}}}{{% endif %}}{CHATML}"
        );
        let with = found(&source, "").expect("a format");
        let said = with.default_system.as_deref().expect("a default");
        assert!(said.starts_with("Be kind."), "{said}");
        let mut text = String::new();
        with.write(&mut text);
        assert!(text.contains("SYSTEM \"\"\"Be kind."), "{text}");
    }

    #[test]
    fn the_first_token_is_left_to_the_tokenizer() {
        let source = format!("{{{{ bos_token }}}}{CHATML}");
        assert_eq!(found(&source, "<s>"), found(CHATML, ""));
    }

    #[test]
    fn a_format_that_ollama_cannot_say_is_not_invented() {
        // The number of a turn, and a system message inside the first user message.
        let numbered = "{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        assert_eq!(found(numbered, ""), None);
        let merged = "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set ms = messages[1:] %}\
            {% else %}{% set s = '' %}{% set ms = messages %}{% endif %}{% for m in ms %}{% if m.role == 'user' %}[INST] \
            {% if loop.last %}{{ s }} {% endif %}{{ m.content }} [/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}";
        assert_eq!(found(merged, ""), None);
    }
}
