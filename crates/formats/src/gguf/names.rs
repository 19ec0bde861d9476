//! GGUF tensor names of the Llama family and their Hugging Face names.

/// Tensors outside the layers.
const TOP: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Tensors of a layer, without `.weight` or `.bias`.
const LAYER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The Hugging Face name of a GGUF tensor, or `None` if the Llama family has no such tensor.
pub(super) fn hf_name(gguf: &str) -> Option<String> {
    if let Some((_, hf)) = TOP.iter().find(|(g, _)| *g == gguf) {
        return Some((*hf).to_owned());
    }
    let (layer, rest) = gguf.strip_prefix("blk.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") || layer.is_empty() || !layer.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (_, hf) = LAYER.iter().find(|(g, _)| *g == module)?;
    Some(format!("model.layers.{layer}.{hf}.{kind}"))
}

/// The GGUF name of a Hugging Face tensor: the inverse of [`hf_name`].
pub(super) fn gguf_name(hf: &str) -> Option<String> {
    if let Some((gguf, _)) = TOP.iter().find(|(_, h)| *h == hf) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = hf.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let (gguf, _) = LAYER.iter().find(|(_, h)| *h == module)?;
    let name = format!("blk.{layer}.{gguf}.{kind}");
    (hf_name(&name).as_deref() == Some(hf)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{gguf_name, hf_name};

    #[test]
    fn names_of_the_family() {
        assert_eq!(hf_name("token_embd.weight").as_deref(), Some("model.embed_tokens.weight"));
        assert_eq!(
            hf_name("blk.12.attn_q.weight").as_deref(),
            Some("model.layers.12.self_attn.q_proj.weight")
        );
        assert_eq!(hf_name("blk.0.attn_k.bias").as_deref(), Some("model.layers.0.self_attn.k_proj.bias"));
        for name in ["token_embd.weight", "output.weight", "blk.7.ffn_down.weight", "blk.10.attn_norm.weight"]
        {
            assert_eq!(gguf_name(&hf_name(name).expect("known")).as_deref(), Some(name));
        }
        for strange in
            ["model.layers.0.mlp.experts.0.weight", "model.layers.x.mlp.up_proj.weight", "score.weight"]
        {
            assert_eq!(gguf_name(strange), None, "{strange}");
        }
        for strange in
            ["rope_freqs.weight", "blk..attn_q.weight", "blk.1x.attn_q.weight", "blk.0.attn_q.scale", ""]
        {
            assert_eq!(hf_name(strange), None, "{strange}");
        }
    }
}
