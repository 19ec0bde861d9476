//! How many tokens a model has beside those of its base: added by the configuration, or brought by an adapter.

use crate::config::{TokenChoice, TokenName};
use crate::failure::{Failure, Outcome};
use foundry_formats::Tokenizer;
use foundry_models::{DecoderConfig, adapter_vocabulary};
use std::path::Path;

/// Rows that the embedding needs at least; 0 where nothing says so.
pub(crate) fn rows(tokenizer: Option<&Tokenizer>, adapter: Option<&Path>) -> Outcome<usize> {
    let of_tokenizer = tokenizer.map_or(0, Tokenizer::rows);
    let Some(dir) = adapter else { return Ok(of_tokenizer) };
    let of_adapter = adapter_vocabulary(dir).map_err(Failure::input)?;
    Ok(of_tokenizer.max(of_adapter))
}

/// A base's shapes with rows for the tokens of its adapters; `tokenizer` is one of theirs where they have one.
pub(crate) fn grown<'a>(
    mut config: DecoderConfig,
    tokenizer: &Tokenizer,
    adapters: impl Iterator<Item = &'a Path>,
) -> Outcome<DecoderConfig> {
    for dir in adapters {
        let own = Some(tokenizer).filter(|_| dir.join("tokenizer.json").is_file());
        config.vocab_size = config.vocab_size.max(rows(own, Some(dir))?);
    }
    Ok(config)
}

/// The tokenizer for several adapters of one base: that with the most tokens, which must have all tokens of the others
/// under the same ids. `None` where none of them brings one.
pub(crate) fn shared_tokenizer(adapters: &[&Path]) -> Outcome<Option<Tokenizer>> {
    let mut all = Vec::new();
    for dir in adapters.iter().filter(|dir| dir.join("tokenizer.json").is_file()) {
        all.push((*dir, Tokenizer::from_dir(dir).map_err(Failure::input)?));
    }
    let most = all.iter().map(|(_, tokenizer)| tokenizer.rows()).max().unwrap_or(0);
    // Of equals the first: its chat template is taken, too.
    let Some(at) = all.iter().position(|(_, tokenizer)| tokenizer.rows() == most) else { return Ok(None) };
    let (dir, chosen) = all.swap_remove(at);
    for (other, tokenizer) in &all {
        let differs = |id: &u32| tokenizer.id_to_token(*id) != chosen.id_to_token(*id);
        if let Some(id) = (0..tokenizer.rows() as u32).find(differs) {
            let name = |tokenizer: &Tokenizer| tokenizer.id_to_token(id).unwrap_or_default();
            return Err(Failure::Input(format!(
                "token {id} is `{}` in {} and `{}` in {}\n  adapters whose vocabularies contradict each other cannot be used \
                 together",
                name(&chosen),
                dir.display(),
                name(tokenizer),
                other.display()
            )));
        }
    }
    Ok(Some(chosen))
}

/// The ids of `lora.trainable_token_indices`.
pub(crate) fn chosen(
    choice: &TokenChoice,
    tokenizer: Option<&Tokenizer>,
    added: &[u32],
) -> Outcome<Option<Vec<u32>>> {
    let key = "lora.trainable_token_indices";
    let tokens = match choice {
        // A plan without a tokenizer knows no ids.
        TokenChoice::Added if tokenizer.is_none() => return Ok(None),
        TokenChoice::Added if added.is_empty() => {
            return Err(Failure::Input(format!(
                "{key} is `added`, but no tokens are added\n  name them in tokenizer.add_tokens or \
                 tokenizer.add_special_tokens"
            )));
        }
        TokenChoice::Added => return Ok(Some(sorted(added.to_vec()))),
        TokenChoice::Listed(tokens) => tokens,
    };
    let id = |token: &TokenName| match token {
        TokenName::Id(id) => Ok(Some(*id)),
        TokenName::Text(text) => match tokenizer.map(|tokenizer| tokenizer.token_to_id(text)) {
            None => Ok(None),
            Some(Some(id)) => Ok(Some(id)),
            Some(None) => Err(Failure::Input(format!(
                "{key} names `{text}`, which is not a token of the vocabulary\n  write it as tokenizer.json does, add \
                 it with tokenizer.add_tokens, or give its id"
            ))),
        },
    };
    tokens.iter().map(id).collect()
}

/// Each once.
fn sorted(mut ids: Vec<u32>) -> Vec<u32> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
