//! Names that vLLM knows, written down from its sources (0.10 to 0.11); a later version may know more.

/// Text models of `model_executor/models/registry.py`, by what stands before `ForCausalLM`.
const CAUSAL: [&str; 113] = [
    "Afmoe",
    "Apertus",
    "Aquila",
    "Arcee",
    "Arctic",
    "BaiChuan",
    "Baichuan",
    "BailingMoe",
    "BailingMoeV2",
    "Bamba",
    "Bloom",
    "Cohere",
    "Cohere2",
    "Cwm",
    "Dbrx",
    "DeciLM",
    "Deepseek",
    "DeepseekV2",
    "DeepseekV3",
    "DeepseekV32",
    "Dots1",
    "Ernie4_5",
    "Ernie4_5_Moe",
    "Exaone",
    "Exaone4",
    "Fairseq2Llama",
    "Falcon",
    "FalconH1",
    "FalconMamba",
    "FlexOlmo",
    "GPTBigCode",
    "GPTJ",
    "GPTNeoX",
    "Gemma",
    "Gemma2",
    "Gemma3",
    "Gemma3n",
    "Glm",
    "Glm4",
    "Glm4Moe",
    "GptOss",
    "Granite",
    "GraniteMoe",
    "GraniteMoeHybrid",
    "GraniteMoeShared",
    "Grok1Model",
    "HunYuanDenseV1",
    "HunYuanMoEV1",
    "InternLM",
    "InternLM2",
    "InternLM2VE",
    "InternLM3",
    "Jais2",
    "Jamba",
    "KimiLinear",
    "LLaMA",
    "Lfm2",
    "Lfm2Moe",
    "Llama",
    "Llama4",
    "LongcatFlash",
    "MPT",
    "Mamba",
    "Mamba2",
    "MiMo",
    "MiMoV2Flash",
    "MiniCPM",
    "MiniCPM3",
    "MiniMax",
    "MiniMaxM1",
    "MiniMaxM2",
    "MiniMaxText01",
    "Mistral",
    "MistralLarge3",
    "Mixtral",
    "Mpt",
    "Nemotron",
    "NemotronH",
    "OPT",
    "Olmo",
    "Olmo2",
    "Olmo3",
    "Olmoe",
    "Orion",
    "Ouro",
    "PanguEmbedded",
    "PanguProMoEV2",
    "PanguUltraMoE",
    "Persimmon",
    "Phi",
    "Phi3",
    "PhiMoE",
    "Plamo2",
    "Plamo3",
    "Qwen2",
    "Qwen2Moe",
    "Qwen3",
    "Qwen3Moe",
    "Qwen3Next",
    "RW",
    "SeedOss",
    "Solar",
    "StableLMEpoch",
    "StableLm",
    "Starcoder2",
    "Step3Text",
    "TeleChat",
    "TeleChat2",
    "TeleFLM",
    "Transformers",
    "TransformersMoE",
    "Xverse",
    "Zamba2",
];

/// Those of them that are called otherwise.
const OTHERS: [&str; 7] = [
    "AquilaModel",
    "ChatGLMForConditionalGeneration",
    "ChatGLMModel",
    "GPT2LMHeadModel",
    "GritLM",
    "JAISLMHeadModel",
    "QWenLMHeadModel",
];

/// Values of `quant_method` (`model_executor/layers/quantization`).
const METHODS: [&str; 32] = [
    "aqlm",
    "auto-round",
    "awq",
    "awq_marlin",
    "bitblas",
    "bitsandbytes",
    "compressed-tensors",
    "compressed_tensors",
    "deepspeedfp",
    "experts_int8",
    "fbgemm_fp8",
    "fp8",
    "gguf",
    "gptq",
    "gptq_bitblas",
    "gptq_marlin",
    "gptq_marlin_24",
    "hqq",
    "inc",
    "ipex",
    "marlin",
    "modelopt",
    "modelopt_fp4",
    "moe_wna16",
    "mxfp4",
    "petit_nvfp4",
    "ptpc_fp8",
    "qqq",
    "quark",
    "rtn",
    "torchao",
    "tpu_int8",
];

/// A value of `architectures` for which vLLM has a text model.
pub(super) fn is_text_model(architecture: &str) -> bool {
    architecture.strip_suffix("ForCausalLM").is_some_and(|name| CAUSAL.contains(&name))
        || OTHERS.contains(&architecture)
}

/// A value of `quantization_config.quant_method` that vLLM reads.
pub(super) fn is_quant_method(name: &str) -> bool {
    METHODS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_this_program_is_known() {
        for architecture in foundry_models::families::FAMILIES.iter().flat_map(|family| family.architectures)
        {
            assert!(is_text_model(architecture), "{architecture}");
        }
        assert!(!is_text_model("FoobarForCausalLM") && !is_text_model("Llama"));
    }
}
