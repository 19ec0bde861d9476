//! Learning rates equal to those of transformers, step by step (`goldens/make_schedules.py` wrote them).

use foundry_engine::schedule::{Schedule, SchedulerType};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    lr_scheduler_type: SchedulerType,
    learning_rate: f64,
    warmup_steps: u64,
    total_steps: u64,
    lr_scheduler_kwargs: Map<String, Value>,
    rates: Vec<f64>,
}

#[test]
fn rates_equal_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../goldens/schedules.json")).unwrap();
    for family in SchedulerType::ALL {
        assert!(cases.iter().any(|case| case.lr_scheduler_type == family), "no golden for {family}");
    }
    for case in cases {
        let Case { lr_scheduler_type, learning_rate, warmup_steps, total_steps, lr_scheduler_kwargs, rates } =
            case;
        let schedule =
            Schedule::new(lr_scheduler_type, learning_rate, warmup_steps, total_steps, &lr_scheduler_kwargs)
                .unwrap();
        for (step, expected) in rates.iter().enumerate() {
            let got = schedule.learning_rate(step as u64);
            // Both compute in f64; the cosine of two mathematical libraries may differ in its last bit, and
            // `1 + cos(π)` turns that into an absolute error of about 1e-16 of the peak.
            let tolerance = 4e-16 * learning_rate;
            assert!(
                (got - expected).abs() <= tolerance,
                "{lr_scheduler_type} {lr_scheduler_kwargs:?} step {step}: {got:e}, transformers {expected:e}"
            );
        }
    }
}
