//! How tokens are drawn: flags over the model's generation_config.json over transformers' defaults.

use crate::cli::SamplingArgs;
use crate::failure::{Failure, Outcome};
use foundry_models::Sampling;
use serde_json::Value;

/// Settings of a generation. A flag that only sampling heeds (`--top-p`, …) turns sampling on.
pub(crate) fn sampling(
    args: &SamplingArgs,
    model: Option<&Value>,
    max_new_tokens: usize,
) -> Outcome<Sampling> {
    let number = |key: &str| model.and_then(|m| m.get(key)).and_then(Value::as_f64);
    let count = |key: &str| model.and_then(|m| m.get(key)).and_then(Value::as_u64).map(|n| n as usize);
    let default = Sampling::default();
    let wants_greedy = args.greedy || args.temperature == Some(0.0);
    let asks_for_draws = args.do_sample
        || args.temperature.is_some()
        || args.top_k.is_some()
        || args.top_p.is_some()
        || args.min_p.is_some();
    // A temperature of 0 is greedy, a model's as a flag's.
    let model_temperature = number("temperature");
    let model_draws = model.and_then(|m| m.get("do_sample")).and_then(Value::as_bool).unwrap_or(false)
        && model_temperature != Some(0.0);
    let sampling = Sampling {
        do_sample: !wants_greedy && (asks_for_draws || model_draws),
        temperature: args
            .temperature
            .or(model_temperature)
            .filter(|&t| t != 0.0)
            .unwrap_or(default.temperature),
        top_k: args.top_k.or(count("top_k")).unwrap_or(default.top_k),
        top_p: args.top_p.or(number("top_p")).unwrap_or(default.top_p),
        min_p: args.min_p.or(number("min_p")),
        repetition_penalty: args
            .repetition_penalty
            .or(number("repetition_penalty"))
            .unwrap_or(default.repetition_penalty),
        max_new_tokens: args.max_new_tokens.or(count("max_new_tokens")).unwrap_or(max_new_tokens),
        seed: args.seed,
    };
    sampling.check().map_err(Failure::input)?;
    Ok(sampling)
}

/// The model's own settings, over transformers' defaults.
pub(crate) fn sampling_of_model(model: Option<&Value>) -> Outcome<Sampling> {
    let default = Sampling::default();
    let none = SamplingArgs {
        max_new_tokens: None,
        temperature: None,
        top_k: None,
        top_p: None,
        min_p: None,
        repetition_penalty: None,
        stop: Vec::new(),
        seed: default.seed,
        greedy: false,
        do_sample: false,
    };
    sampling(&none, model, default.max_new_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args() -> SamplingArgs {
        SamplingArgs {
            max_new_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            stop: Vec::new(),
            seed: 42,
            greedy: false,
            do_sample: false,
        }
    }

    #[test]
    fn flags_come_before_the_model_before_defaults() {
        let model = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9});
        let plain = sampling(&args(), Some(&model), 7).expect("valid");
        assert_eq!((plain.do_sample, plain.temperature, plain.top_p, plain.top_k), (true, 0.6, 0.9, 50));
        assert_eq!(plain.max_new_tokens, 7);
        let flags = SamplingArgs { temperature: Some(1.5), ..args() };
        assert_eq!(sampling(&flags, Some(&model), 7).expect("valid").temperature, 1.5);
        assert!(
            !sampling(&SamplingArgs { greedy: true, ..args() }, Some(&model), 7).expect("valid").do_sample
        );
        assert!(!sampling(&args(), None, 7).expect("valid").do_sample);
    }

    #[test]
    fn a_temperature_of_zero_is_greedy_and_others_draw() {
        let zero = SamplingArgs { temperature: Some(0.0), ..args() };
        assert!(!sampling(&zero, Some(&json!({"do_sample": true})), 7).expect("valid").do_sample);
        for do_sample in [false, true] {
            let model = json!({"do_sample": do_sample, "temperature": 0.0});
            let own = sampling_of_model(Some(&model)).expect("valid");
            assert_eq!((own.do_sample, own.temperature), (false, 1.0));
            let draws = SamplingArgs { do_sample: true, ..args() };
            assert!(sampling(&draws, Some(&model), 7).expect("valid").do_sample, "a flag comes first");
        }
        assert!(sampling_of_model(Some(&json!({"temperature": -1.0}))).is_err());
        assert!(sampling(&SamplingArgs { top_p: Some(0.5), ..args() }, None, 7).expect("valid").do_sample);
        assert!(sampling(&SamplingArgs { top_p: Some(1.5), ..args() }, None, 7).is_err());
        assert!(sampling(&SamplingArgs { temperature: Some(-1.0), ..args() }, None, 7).is_err());
    }
}
