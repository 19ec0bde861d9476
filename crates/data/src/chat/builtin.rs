//! Chat templates by name, written for this program after the formats that models document.
//!
//! Each marks what the assistant says (`{% generation %}`, the end of its turn included), and renders the turns of a
//! conversation the same whatever follows; `qwen3` alone does not, as Qwen3 does not.

/// Names and sources.
const TEMPLATES: [(&str, &str); 13] = [
    ("alpaca", include_str!("builtin/alpaca.jinja")),
    ("chatml", include_str!("builtin/chatml.jinja")),
    ("gemma", include_str!("builtin/gemma.jinja")),
    ("hermes", include_str!("builtin/hermes.jinja")),
    ("llama2", include_str!("builtin/llama2.jinja")),
    ("llama3", include_str!("builtin/llama3.jinja")),
    ("mistral", include_str!("builtin/mistral.jinja")),
    ("phi3", include_str!("builtin/phi3.jinja")),
    ("phi4", include_str!("builtin/phi4.jinja")),
    ("qwen3", include_str!("builtin/qwen3.jinja")),
    ("smollm2", include_str!("builtin/smollm2.jinja")),
    ("vicuna", include_str!("builtin/vicuna.jinja")),
    ("zephyr", include_str!("builtin/zephyr.jinja")),
];

/// The source of the template of that name. Other programs write the same names with `_` or `-` (`phi_3`, `llama-3`).
pub fn find(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_lowercase().replace(['_', '-'], "");
    TEMPLATES.iter().find(|(known, _)| *known == plain).map(|(_, source)| *source)
}

/// All names, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(name, _)| *name)
}
