//! Which module plays which role under LoRA, by PEFT 0.21's rules of matching names.

use super::{LoraSpec, TargetModules};
use crate::families::{Family, Slot};
use crate::{DecoderConfig, ModelError};
use fancy_regex::Regex;
use std::collections::HashMap;

/// What happens to one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its weights stay as they are.
    Frozen,
    /// It gets a low-rank branch.
    Adapted,
    /// A full copy of it is trained and saved.
    Saved,
}

/// The role of every module of a decoder, by its full name.
#[derive(Debug)]
pub(crate) struct Roles {
    roles: HashMap<String, Role>,
}

impl Roles {
    /// Full names of the modules that get a branch.
    pub(crate) fn adapted(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter(|(_, role)| **role == Role::Adapted).map(|(module, _)| module.as_str())
    }

    /// The role of a module by its full name.
    pub(crate) fn of(&self, module: &str) -> Role {
        self.roles.get(module).copied().unwrap_or(Role::Frozen)
    }
}

enum Matcher {
    All,
    Names(Vec<String>),
    Full(Regex),
}

impl Matcher {
    fn compile(key: &str, targets: &TargetModules) -> Result<Self, ModelError> {
        Ok(match targets {
            TargetModules::AllLinear => Matcher::All,
            TargetModules::List(names) => Matcher::Names(names.clone()),
            TargetModules::Regex(pattern) => {
                // Python's `re.fullmatch`.
                let regex = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(|error| ModelError::Lora {
                    what: format!("`{key}: {pattern}` is not a regular expression ({error})"),
                    remedy: "correct it, or list the module names".into(),
                })?;
                Matcher::Full(regex)
            }
        })
    }

    fn matches(&self, module: &str) -> bool {
        match self {
            Matcher::All => true,
            Matcher::Names(names) => names.iter().any(|name| ends_with_path(module, name)),
            // Backtracking past the engine's limit counts as no match.
            Matcher::Full(regex) => regex.is_match(module).unwrap_or(false),
        }
    }
}

/// `layers_to_transform` and `layers_pattern` (PEFT 0.21 `check_target_module_exists`).
struct Layers {
    chosen: Option<Vec<usize>>,
    patterns: Vec<Regex>,
}

impl Layers {
    fn compile(config: &DecoderConfig, spec: &LoraSpec) -> Result<Self, ModelError> {
        let error = |what: String, remedy: String| ModelError::Lora { what, remedy };
        let count = config.num_hidden_layers;
        if let Some(layer) = spec.layers_to_transform.iter().flatten().find(|layer| **layer >= count) {
            let what = format!("`layers_to_transform` names layer {layer}, which this model does not have");
            return Err(error(what, format!("its layers are 0 to {}", count.saturating_sub(1))));
        }
        let written = match &spec.layers_pattern {
            Some(names) => names.iter().map(|name| format!(r"\A.*\.{name}\.(\d+)\.")).collect(),
            None => vec![r"\A.*\.[^.]*\.(\d+)\.".to_owned()],
        };
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|problem| {
                let what = format!("`layers_pattern` is not a regular expression ({problem})");
                error(what, "name the list of layers, usually `layers`".into())
            })
        };
        let patterns = written.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { chosen: spec.layers_to_transform.clone(), patterns })
    }

    /// A target by its full name is adapted in any layer.
    fn contain(&self, module: &str, target: &Matcher) -> bool {
        let Some(chosen) = &self.chosen else { return true };
        if matches!(target, Matcher::Names(names) if names.iter().any(|name| name == module)) {
            return true;
        }
        let found = self.patterns.iter().find_map(|regex| regex.captures(module).ok().flatten());
        let layer = found.and_then(|found| found.get(1)?.as_str().parse().ok());
        layer.is_some_and(|layer: usize| chosen.contains(&layer))
    }
}

/// `module` is `ending`, or ends with it after a dot.
fn ends_with_path(module: &str, ending: &str) -> bool {
    module.strip_suffix(ending).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

/// The module and everything around it: `a.b.c`, `a.b`, `a`.
fn containers(module: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(module), |name| name.rsplit_once('.').map(|(outer, _)| outer))
}

/// `modules_to_save` matches by plain ending, of the module or of one around it (PEFT `_set_trainable`).
pub(super) fn is_saved(spec: &LoraSpec, module: &str) -> bool {
    let endings = spec.modules_to_save.iter().flatten();
    endings.into_iter().any(|ending| containers(module).any(|name| name.ends_with(ending.as_str())))
}

/// `modules_to_save` keeps targets away by whole path components (PEFT `check_target_module_exists`).
fn is_kept_from_targets(spec: &LoraSpec, module: &str) -> bool {
    let names = spec.modules_to_save.iter().flatten();
    names.into_iter().any(|name| containers(module).any(|outer| ends_with_path(outer, name)))
}

/// Assigns a role to every module.
///
/// # Errors
/// A target, excluded or saved name that matches nothing, a regular expression that does not compile, an adapter on
/// the head or the embedding.
pub(crate) fn roles(config: &DecoderConfig, spec: &LoraSpec) -> Result<Roles, ModelError> {
    spec.check()?;
    let targets = spec.targets(config.family);
    let target = Matcher::compile("target_modules", &targets)?;
    let excluded =
        spec.exclude_modules.as_ref().map(|e| Matcher::compile("exclude_modules", e)).transpose()?;
    let layers = Layers::compile(config, spec)?;
    let mut roles = Vec::new();
    for (slot, module) in modules(config) {
        let role = if is_saved(spec, &module) {
            Role::Saved
        } else if excluded.as_ref().is_some_and(|e| e.matches(&module)) || is_kept_from_targets(spec, &module)
        {
            Role::Frozen
        } else if target.matches(&module) && layers.contain(&module, &target) {
            match slot {
                Slot::EmbedTokens
                | Slot::LmHead
                | Slot::InputLayernorm
                | Slot::PostAttentionLayernorm
                | Slot::Norm
                    if matches!(target, Matcher::All) =>
                {
                    Role::Frozen
                }
                Slot::EmbedTokens | Slot::LmHead => return Err(no_adapter_on(&module)),
                Slot::InputLayernorm | Slot::PostAttentionLayernorm | Slot::Norm => {
                    return Err(not_linear(&module));
                }
                _ => Role::Adapted,
            }
        } else {
            Role::Frozen
        };
        roles.push((module, role));
    }
    let is_target = |name: &str| {
        let is_out = excluded.as_ref().is_some_and(|e| e.matches(name)) || is_kept_from_targets(spec, name);
        !is_out && target.matches(name) && layers.contain(name, &target)
    };
    // PEFT looks at these too, and would not read the adapter: `.*attn.*` matches `model.layers.0.self_attn`.
    let around = roles.iter().flat_map(|(module, _)| containers(module).skip(1));
    if let Some(name) = around.into_iter().find(|name| !matches!(target, Matcher::All) && is_target(name)) {
        return Err(not_linear(name));
    }
    check_all_found(spec, &targets, excluded.as_ref(), &roles)?;
    check_token_indices(config, spec, &roles)?;
    if spec.init_lora_weights.changes_base() {
        check_ranks(config, spec, &roles)?;
    }
    Ok(Roles { roles: roles.into_iter().collect() })
}

/// Trained rows must be in the vocabulary, and the table frozen.
fn check_token_indices(
    config: &DecoderConfig,
    spec: &LoraSpec,
    roles: &[(String, Role)],
) -> Result<(), ModelError> {
    let Some(indices) = &spec.trainable_token_indices else { return Ok(()) };
    let error = |what: String, remedy: String| Err(ModelError::Lora { what, remedy });
    if let Some(id) = indices.iter().find(|id| **id as usize >= config.vocab_size) {
        let what = format!("`trainable_token_indices` names token {id}");
        return error(what, format!("the model's vocabulary has the tokens 0 to {}", config.vocab_size - 1));
    }
    let is_whole = [Slot::EmbedTokens, Slot::LmHead].iter().any(|slot| {
        let name = config.family.module(*slot, 0);
        (*slot == Slot::EmbedTokens || config.tie_word_embeddings)
            && roles.iter().any(|(module, role)| *module == name && *role == Role::Saved)
    });
    if is_whole {
        let what = "`trainable_token_indices` and `modules_to_save` both train the embedding".into();
        return error(what, "keep one of them".into());
    }
    Ok(())
}

/// No more singular triplets than the matrix has.
fn check_ranks(config: &DecoderConfig, spec: &LoraSpec, roles: &[(String, Role)]) -> Result<(), ModelError> {
    let (d, f) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.query_width(), config.key_value_width());
    let names = modules(config).into_iter().zip(roles).filter(|(_, (_, role))| *role == Role::Adapted);
    for ((slot, module), _) in names {
        let narrow = match slot {
            Slot::QProj | Slot::OProj => q.min(d),
            Slot::KProj | Slot::VProj => kv.min(d),
            _ => f.min(d),
        };
        let r = spec.rank_of(&module);
        if r > narrow {
            return Err(ModelError::Lora {
                what: format!(
                    "`init_lora_weights: {}` takes {r} directions out of `{module}`, which has {narrow}",
                    spec.init_lora_weights
                ),
                remedy: format!(
                    "choose a rank of at most {narrow} (`rank_pattern` sets it for single modules)"
                ),
            });
        }
    }
    Ok(())
}

/// Every module in the order of `named_modules`.
pub(crate) fn modules(config: &DecoderConfig) -> Vec<(Slot, String)> {
    let family = config.family;
    let in_layers = |pattern: &str| pattern.contains("{}");
    let before = family.modules.iter().take_while(|(_, pattern)| !in_layers(pattern));
    let layers = (0..config.num_hidden_layers).flat_map(|layer| {
        let slots = family.modules.iter().filter(|(_, pattern)| in_layers(pattern));
        slots.map(move |(slot, _)| (*slot, family.module(*slot, layer)))
    });
    let after = family.modules.iter().skip_while(|(_, p)| !in_layers(p)).filter(|(_, p)| !in_layers(p));
    let plain = |(slot, pattern): &(Slot, &str)| (*slot, (*pattern).to_string());
    before.map(plain).chain(layers).chain(after.map(plain)).collect()
}

fn not_linear(module: &str) -> ModelError {
    ModelError::Lora {
        what: format!("`target_modules` matches `{module}`, which is not a linear layer"),
        remedy: "narrow `target_modules`, or name the module in `modules_to_save`".into(),
    }
}

fn no_adapter_on(module: &str) -> ModelError {
    ModelError::Lora {
        what: format!(
            "`target_modules` matches `{module}`; adapters on the embedding or the head are not supported"
        ),
        remedy: "take it out of `target_modules`, or train it in full with `modules_to_save`".into(),
    }
}

fn check_all_found(
    spec: &LoraSpec,
    targets: &TargetModules,
    excluded: Option<&Matcher>,
    roles: &[(String, Role)],
) -> Result<(), ModelError> {
    let known = || {
        let mut names: Vec<&str> = roles.iter().filter_map(|(name, _)| name.rsplit('.').next()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let missing = |key: &str, name: &str| ModelError::Lora {
        what: format!("`{key}` names `{name}`, which this model does not have"),
        remedy: format!("its modules are {}", known()),
    };
    if let TargetModules::List(names) = targets {
        for name in names {
            if !roles.iter().any(|(module, _)| ends_with_path(module, name)) {
                return Err(missing("target_modules", name));
            }
        }
    }
    match (&spec.exclude_modules, excluded) {
        (Some(TargetModules::List(names)), _) => {
            if let Some(name) = names.iter().find(|n| !roles.iter().any(|(m, _)| ends_with_path(m, n))) {
                return Err(missing("exclude_modules", name));
            }
        }
        (Some(TargetModules::Regex(pattern)), Some(e)) if !roles.iter().any(|(m, _)| e.matches(m)) => {
            return Err(ModelError::Lora {
                what: format!("`exclude_modules: {pattern}` matches no module; it must match whole names"),
                remedy: format!("for example `.*\\.o_proj`; the modules are {}", known()),
            });
        }
        _ => {}
    }
    for name in spec.modules_to_save.iter().flatten() {
        if name.is_empty()
            || !roles.iter().any(|(m, _)| containers(m).any(|outer| outer.ends_with(name.as_str())))
        {
            return Err(missing("modules_to_save", name));
        }
    }
    if !roles.iter().any(|(_, role)| *role == Role::Adapted) {
        return Err(ModelError::Lora {
            what: "`target_modules` (less `exclude_modules` and `modules_to_save`) matches no linear layer"
                .into(),
            remedy: format!("use `all-linear` or names among {}", known()),
        });
    }
    Ok(())
}

impl LoraSpec {
    /// `target_modules`, or the family's default.
    pub(crate) fn targets(&self, family: &Family) -> TargetModules {
        self.target_modules.clone().unwrap_or_else(|| {
            TargetModules::List(family.lora_target_modules.iter().map(|name| (*name).to_string()).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_config;

    fn adapted(spec: &LoraSpec) -> Vec<String> {
        let roles = roles(&test_config(), spec).unwrap();
        let mut chosen: Vec<String> = roles
            .roles
            .into_iter()
            .filter(|(_, role)| *role == Role::Adapted)
            .map(|(name, _)| name)
            .collect();
        chosen.sort();
        chosen
    }

    fn list(names: &[&str]) -> Option<TargetModules> {
        Some(TargetModules::List(names.iter().map(|n| (*n).to_string()).collect()))
    }

    fn all_linear() -> LoraSpec {
        LoraSpec { target_modules: Some(TargetModules::AllLinear), ..LoraSpec::default() }
    }

    #[test]
    fn default_targets_are_the_query_and_value_projections() {
        let names = adapted(&LoraSpec::default());
        assert_eq!(names.len(), 2 * test_config().num_hidden_layers);
        assert!(names.iter().all(|n| n.ends_with("q_proj") || n.ends_with("v_proj")));
    }

    #[test]
    fn all_linear_leaves_out_the_head() {
        let names = adapted(&all_linear());
        assert_eq!(names.len(), 7 * test_config().num_hidden_layers);
        assert!(!names.contains(&"lm_head".to_string()));
    }

    #[test]
    fn list_entries_match_whole_names_or_endings_after_a_dot() {
        let exact = LoraSpec { target_modules: list(&["model.layers.1.mlp.up_proj"]), ..LoraSpec::default() };
        assert_eq!(adapted(&exact), ["model.layers.1.mlp.up_proj"]);
        let ending = LoraSpec { target_modules: list(&["0.self_attn.k_proj"]), ..LoraSpec::default() };
        assert_eq!(adapted(&ending), ["model.layers.0.self_attn.k_proj"]);
        let no_dot = LoraSpec { target_modules: list(&["proj"]), ..LoraSpec::default() };
        assert!(roles(&test_config(), &no_dot).is_err());
    }

    #[test]
    fn a_regular_expression_must_match_the_whole_name() {
        let regex = |text: &str| LoraSpec {
            target_modules: Some(TargetModules::Regex(text.into())),
            ..LoraSpec::default()
        };
        assert_eq!(adapted(&regex(r".*\.1\.self_attn\.(q|o)_proj")).len(), 2);
        assert_eq!(adapted(&regex(r"model\.layers\.(?!0\.).*\.down_proj")), ["model.layers.1.mlp.down_proj"]);
        assert!(roles(&test_config(), &regex("q_proj")).is_err(), "fullmatch, not search");
        let error = roles(&test_config(), &regex("(q_proj")).unwrap_err();
        assert!(error.to_string().contains("not a regular expression"), "{error}");
    }

    #[test]
    fn excluded_and_saved_modules_are_not_adapted() {
        let spec = LoraSpec {
            exclude_modules: list(&["o_proj"]),
            modules_to_save: Some(vec!["lm_head".into(), "1.mlp.up_proj".into()]),
            ..all_linear()
        };
        let names = adapted(&spec);
        assert_eq!(names.len(), 7 * 2 - 2 - 1);
        let roles = roles(&test_config(), &spec).unwrap();
        assert_eq!(roles.of("lm_head"), Role::Saved);
        assert_eq!(roles.of("model.layers.1.mlp.up_proj"), Role::Saved);
        assert_eq!(roles.of("model.layers.0.self_attn.o_proj"), Role::Frozen);
    }

    #[test]
    fn saved_modules_match_by_plain_ending_as_in_peft() {
        let spec = LoraSpec { modules_to_save: Some(vec!["norm".into()]), ..all_linear() };
        let roles = roles(&test_config(), &spec).unwrap();
        for module in
            ["model.norm", "model.layers.0.input_layernorm", "model.layers.1.post_attention_layernorm"]
        {
            assert_eq!(roles.of(module), Role::Saved);
        }
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        let cases = [
            (LoraSpec { r: 0, ..all_linear() }, "`r` is 0"),
            (LoraSpec { lora_dropout: 1.0, ..all_linear() }, "lora_dropout"),
            (LoraSpec { lora_dropout: 0.999_999_99, ..all_linear() }, "lora_dropout"),
            (LoraSpec { lora_alpha: f64::NAN, ..all_linear() }, "lora_alpha"),
            (LoraSpec { exclude_modules: Some(TargetModules::AllLinear), ..all_linear() }, "exclude_modules"),
            (LoraSpec { exclude_modules: list(&["o_proj", "out_proj"]), ..all_linear() }, "`out_proj`"),
            (LoraSpec { exclude_modules: list(&["out_proj"]), ..all_linear() }, "o_proj, post_attention"),
            (
                LoraSpec { exclude_modules: Some(TargetModules::Regex("o_proj".into())), ..all_linear() },
                "`exclude_modules: o_proj` matches no module",
            ),
            (LoraSpec { target_modules: list(&["lm_head"]), ..LoraSpec::default() }, "lm_head"),
            (LoraSpec { target_modules: list(&["embed_tokens"]), ..LoraSpec::default() }, "embed_tokens"),
            (
                LoraSpec { target_modules: list(&["input_layernorm"]), ..LoraSpec::default() },
                "not a linear layer",
            ),
            (
                LoraSpec {
                    target_modules: Some(TargetModules::Regex(".*self_attn.*".into())),
                    ..LoraSpec::default()
                },
                "`model.layers.0.self_attn`, which is not a linear layer",
            ),
            (LoraSpec { target_modules: list(&["query"]), ..LoraSpec::default() }, "q_proj"),
            (LoraSpec { modules_to_save: Some(vec!["wte".into()]), ..all_linear() }, "wte"),
        ];
        for (spec, expected) in cases {
            let error = roles(&test_config(), &spec).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should mention {expected}");
        }
    }
}
