//! `export --target vllm`: each thing that vLLM would refuse of a model is named, and nothing else.

use crate::results::add_tokens;
use crate::support::{Room, Said, rewrite_tensors};
use serde_json::{Value, json};

/// What is said of the tiny model after `change`.
fn asked(room: &Room, change: impl FnOnce(&Room)) -> Said {
    room.model("model");
    change(room);
    let said = room.foundry(&["export", "model", "--target", "vllm"]);
    std::fs::remove_dir_all(room.path("model")).expect("removed");
    assert_eq!(room.names(), Vec::<String>::new(), "nothing is written");
    said
}

/// Writes config.json again.
fn configure(room: &Room, change: impl FnOnce(&mut Value)) {
    let mut config: Value = serde_json::from_str(&room.read("model/config.json")).expect("JSON");
    change(&mut config);
    room.write("model/config.json", config.to_string());
}

fn rewritten(room: &Room, change: impl Fn(&str, &mut Vec<f32>) -> Option<String>) {
    rewrite_tensors(&room.path("model/model.safetensors"), change);
}

#[test]
fn an_architecture_or_a_quantisation_that_it_does_not_know() {
    let room = Room::new();
    let sound = asked(&room, |_| ()).expect_done();
    assert!(sound.out.contains("nothing that vLLM would refuse") && sound.err.is_empty(), "{}", sound.err);
    let named =
        |name: &'static str| move |room: &Room| configure(room, |c| c["architectures"] = json!([name]));
    asked(&room, named("FoobarForCausalLM")).expect_refusal(&["`FoobarForCausalLM`", "vLLM has no model"]);
    // What only this program does not run is not refused.
    let other = asked(&room, named("Qwen3ForCausalLM")).expect_done();
    assert!(other.err.contains("were not compared with config.json"), "{}", other.err);
    asked(&room, |room| configure(room, |c| c["architectures"] = json!([])))
        .expect_refusal(&["no `architectures`"]);
    let quantised = |method: Value| {
        move |room: &Room| configure(room, |c| c["quantization_config"] = json!({"quant_method": method}))
    };
    asked(&room, quantised(json!("nonsense")))
        .expect_refusal(&["quant_method` is \"nonsense\"", "does not know"]);
    asked(&room, quantised(json!(4))).expect_refusal(&["quant_method` is 4"]);
    asked(&room, |room| {
        configure(room, |c| drop(c.as_object_mut().expect("an object").remove("hidden_size")))
    })
    .expect_refusal(&["hidden_size"]);
}

#[test]
fn weights_and_tokens_that_do_not_fit_the_configuration() {
    let room = Room::new();
    let name = "model.layers.1.mlp.up_proj.weight";
    let without = |room: &Room| rewritten(room, |tensor, _| (tensor != name).then(|| tensor.to_owned()));
    asked(&room, without).expect_refusal(&[&format!("tensor `{name}` is missing")]);
    let odd =
        |room: &Room| rewritten(room, |tensor, _| Some(tensor.replace("1.mlp.up_proj", "1.mlp.odd_proj")));
    asked(&room, odd).expect_refusal(&["mlp."]);
    asked(&room, |room| configure(room, |c| c["intermediate_size"] = json!(48))).expect_refusal(&[
        "mlp",
        "shape",
        "config.json asks for",
    ]);
    asked(&room, |room| add_tokens(&room.path("model"), 768)).expect_refusal(&["ids up to 768", "768 rows"]);
    asked(&room, |room| std::fs::remove_file(room.path("model/tokenizer.json")).expect("removed"))
        .expect_refusal(&["no tokenizer.json"]);
    asked(&room, |room| drop(room.write("model/tokenizer.json", "{"))).expect_refusal(&["tokenizer.json"]);
}

#[test]
fn numbers_that_are_none_and_several_reasons_at_once() {
    let room = Room::new();
    let broken = |room: &Room| {
        rewritten(room, |tensor, values| {
            if tensor == "model.norm.weight" {
                values[5] = f32::NAN;
            }
            Some(tensor.to_owned())
        });
    };
    asked(&room, broken).expect_refusal(&["model.norm.weight", "element 5 is NaN"]);
    let both = |room: &Room| {
        broken(room);
        add_tokens(&room.path("model"), 768);
        configure(room, |c| c["architectures"] = json!(["FoobarForCausalLM"]));
        configure(room, |c| c["quantization_config"] = json!({"quant_method": "nonsense"}));
    };
    asked(&room, both).expect_refusal(&["FoobarForCausalLM", "nonsense", "element 5 is NaN"]);
}

/// What this program writes for vLLM passes its own check.
#[test]
fn every_form_of_safetensors_passes() {
    let room = Room::new();
    for quant in ["f16", "bf16", "fp8", "nf4", "nf4_double", "int8"] {
        let model = room.model("model");
        let model = model.to_str().expect("UTF-8");
        let to = ["--to", "safetensors", "--quant", quant, "--target", "vllm", "-o", quant, "--no-check"];
        let said = room.foundry(&[&["export", model], &to[..]].concat()).expect_done();
        assert!(!said.err.contains("note"), "{quant}: {}", said.err);
    }
}
