//! The tasks that come with the program, `tasks/` of this crate.

/// Path and text of each file.
pub(super) const FILES: &[(&str, &str)] = &[
    ("arc/arc_challenge.yaml", include_str!("../../tasks/arc/arc_challenge.yaml")),
    ("arc/arc_easy.yaml", include_str!("../../tasks/arc/arc_easy.yaml")),
    ("boolq/boolq.yaml", include_str!("../../tasks/boolq/boolq.yaml")),
    ("gsm8k/gsm8k.yaml", include_str!("../../tasks/gsm8k/gsm8k.yaml")),
    ("gsm8k/gsm8k_cot.yaml", include_str!("../../tasks/gsm8k/gsm8k_cot.yaml")),
    ("hellaswag/hellaswag.yaml", include_str!("../../tasks/hellaswag/hellaswag.yaml")),
    ("ifeval/ifeval.yaml", include_str!("../../tasks/ifeval/ifeval.yaml")),
    ("lambada/lambada_openai.yaml", include_str!("../../tasks/lambada/lambada_openai.yaml")),
    ("piqa/piqa.yaml", include_str!("../../tasks/piqa/piqa.yaml")),
    ("truthfulqa/truthfulqa_mc1.yaml", include_str!("../../tasks/truthfulqa/truthfulqa_mc1.yaml")),
    ("truthfulqa/truthfulqa_mc2.yaml", include_str!("../../tasks/truthfulqa/truthfulqa_mc2.yaml")),
    ("wikitext/wikitext.yaml", include_str!("../../tasks/wikitext/wikitext.yaml")),
    ("winogrande/winogrande.yaml", include_str!("../../tasks/winogrande/winogrande.yaml")),
];

/// What all subjects of MMLU share.
pub(super) const MMLU: &str = include_str!("../../tasks/mmlu/subject.yaml");

/// MMLU's four groups and their subjects (Hendrycks et al. 2021).
pub(super) const MMLU_GROUPS: [(&str, &str); 4] = [
    (
        "stem",
        "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science \
         college_mathematics college_physics computer_security conceptual_physics electrical_engineering \
         elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science \
         high_school_mathematics high_school_physics high_school_statistics machine_learning",
    ),
    (
        "other",
        "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing \
         medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology",
    ),
    (
        "social_sciences",
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics \
         high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations \
         security_studies sociology us_foreign_policy",
    ),
    (
        "humanities",
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law \
         jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law \
         world_religions",
    ),
];
