//! `training.optim_args`: what an optimiser is told besides, in transformers' notation (`momentum=0.9,nesterov=true`).

use foundry_engine::{Optim, SgdArgs};

/// Reads the text for an optimiser; the error says what is wrong with it.
pub(crate) fn parse(optim: Optim, text: &str) -> Result<SgdArgs, String> {
    let mut args = SgdArgs::default();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        if optim != Optim::Sgd {
            return Err(format!("`{pair}`: only `sgd` takes arguments here (momentum, dampening, nesterov)"));
        }
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not key=value"))?;
        let (key, value) = (key.trim(), value.trim());
        let number = || value.parse::<f64>().map_err(|_| format!("`{key}` is `{value}`, not a number"));
        match key {
            "momentum" => args.momentum = number()?,
            "dampening" => args.dampening = number()?,
            "nesterov" => {
                args.nesterov = match value.to_ascii_lowercase().as_str() {
                    "true" | "1" | "yes" => true,
                    "false" | "0" | "no" => false,
                    _ => return Err(format!("`nesterov` is `{value}`, not true or false")),
                }
            }
            "weight_decay" => return Err("`weight_decay` is a key of its own: training.weight_decay".into()),
            _ => return Err(format!("`{key}` is not an argument of sgd: momentum, dampening, nesterov")),
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sgd_takes_arguments_and_only_its_own() {
        let read = |text: &str| parse(Optim::Sgd, text);
        let expected = SgdArgs { momentum: 0.9, dampening: 0.0, nesterov: true };
        assert_eq!(read("momentum=0.9, nesterov=True"), Ok(expected));
        assert_eq!(read(""), Ok(SgdArgs::default()));
        for (text, word) in [
            ("momentum", "key=value"),
            ("momentum=high", "not a number"),
            ("nesterov=perhaps", "true or false"),
            ("weight_decay=0.1", "training.weight_decay"),
            ("beta=1", "not an argument"),
        ] {
            assert!(read(text).unwrap_err().contains(word), "{text}");
        }
        assert!(parse(Optim::AdamW, "momentum=0.9").unwrap_err().contains("only `sgd`"));
        assert_eq!(parse(Optim::Lion, ""), Ok(SgdArgs::default()));
    }
}
