//! Which type each tensor of an exported model gets: llama.cpp's mixtures (`llama-quant.cpp`,
//! `llama_tensor_get_type_impl` and `tensor_type_fallback`) for dense Llama models.

use crate::{StoredDtype, TensorInfo};

/// A quantisation by the name that llama.cpp's users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are llama.cpp's")]
#[expect(non_camel_case_types, reason = "the names are llama.cpp's")]
pub enum Recipe {
    F32,
    F16,
    BF16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
}

/// Name, `general.file_type` (`enum llama_ftype`) and type of most matrices.
const TABLE: [(Recipe, &str, u64, StoredDtype); 17] = [
    (Recipe::F32, "f32", 0, StoredDtype::F32),
    (Recipe::F16, "f16", 1, StoredDtype::F16),
    (Recipe::BF16, "bf16", 32, StoredDtype::BF16),
    (Recipe::Q8_0, "q8_0", 7, StoredDtype::Q8_0),
    (Recipe::Q6_K, "q6_k", 18, StoredDtype::Q6K),
    (Recipe::Q5_K_M, "q5_k_m", 17, StoredDtype::Q5K),
    (Recipe::Q5_K_S, "q5_k_s", 16, StoredDtype::Q5K),
    (Recipe::Q4_K_M, "q4_k_m", 15, StoredDtype::Q4K),
    (Recipe::Q4_K_S, "q4_k_s", 14, StoredDtype::Q4K),
    (Recipe::Q3_K_L, "q3_k_l", 13, StoredDtype::Q3K),
    (Recipe::Q3_K_M, "q3_k_m", 12, StoredDtype::Q3K),
    (Recipe::Q3_K_S, "q3_k_s", 11, StoredDtype::Q3K),
    (Recipe::Q2_K, "q2_k", 10, StoredDtype::Q2K),
    (Recipe::Q5_1, "q5_1", 9, StoredDtype::Q5_1),
    (Recipe::Q5_0, "q5_0", 8, StoredDtype::Q5_0),
    (Recipe::Q4_1, "q4_1", 3, StoredDtype::Q4_1),
    (Recipe::Q4_0, "q4_0", 2, StoredDtype::Q4_0),
];

/// The sizes that the mixtures look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelSizes {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) tied: bool,
}

impl Recipe {
    /// All names, for messages and help.
    pub fn names() -> Vec<&'static str> {
        TABLE.iter().map(|row| row.1).collect()
    }

    /// The recipe of a name, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    pub(super) fn file_type(self) -> u64 {
        self.row().2
    }

    fn row(self) -> &'static (Recipe, &'static str, u64, StoredDtype) {
        TABLE.iter().find(|row| row.0 == self).expect("every recipe has a row")
    }

    /// The type of a tensor by its GGUF name and row-major shape.
    pub(super) fn dtype_of(self, name: &str, shape: &[usize], sizes: ModelSizes) -> StoredDtype {
        if shape.len() < 2 || !name.ends_with("weight") || name.ends_with("_norm.weight") {
            return StoredDtype::F32;
        }
        let base = self.row().3;
        if !base.is_quantised() {
            return base;
        }
        let row = shape.last().copied().unwrap_or(1);
        fallback(self.mixed(base, name, row, sizes), row)
    }

    /// Why tensors of a file are not of the type that its name promises.
    pub(super) fn fallback_note<'a>(self, tensors: impl Iterator<Item = &'a TensorInfo>) -> Option<String> {
        let base = self.row().3;
        let block = base.block().0;
        let rows = tensors.filter(|info| info.dtype != StoredDtype::F32);
        let rows: Vec<usize> = rows.filter_map(|info| info.shape.last().copied()).collect();
        let odd = rows.iter().filter(|row| !row.is_multiple_of(block)).count();
        let example = rows.iter().find(|row| !row.is_multiple_of(block))?;
        Some(format!(
            "{odd} of {} matrices have rows of {example} numbers, which are no whole blocks of {block}; they are stored in \
             types of smaller blocks instead of {base}, as llama.cpp does",
            rows.len()
        ))
    }

    fn mixed(self, base: StoredDtype, name: &str, row: usize, sizes: ModelSizes) -> StoredDtype {
        use StoredDtype::{Q3K, Q4K, Q5K, Q6K, Q8_0};
        let is_output = name == "output.weight" || (sizes.tied && name == "token_embd.weight");
        if is_output {
            return match base {
                _ if !row.is_multiple_of(base.block().0) => Q8_0,
                Q8_0 => Q8_0,
                _ => Q6K,
            };
        }
        let Some((layer, module)) = layer_and_module(name) else { return base };
        let layers = sizes.layers;
        let more = layer < layers / 8
            || layer >= 7 * layers / 8
            || layer.checked_sub(layers / 8).is_some_and(|above| above % 3 == 2);
        match (module, self) {
            ("attn_v", Recipe::Q2_K) if sizes.heads / sizes.key_value_heads.max(1) >= 4 => {
                sizes.at_least_five_bits(Q4K)
            }
            ("attn_v", Recipe::Q2_K) => sizes.at_least_five_bits(Q3K),
            ("attn_v", Recipe::Q3_K_M) if layer < 2 => Q5K,
            ("attn_v", Recipe::Q3_K_M) => sizes.at_least_five_bits(Q4K),
            ("attn_v", Recipe::Q3_K_L) => Q5K,
            ("attn_v" | "ffn_down", Recipe::Q4_K_M | Recipe::Q5_K_M) if more => Q6K,
            ("attn_v", Recipe::Q4_K_S) if layer < 4 => Q5K,
            ("attn_v", _) => sizes.at_least_five_bits(base),
            ("ffn_down", Recipe::Q2_K) => Q3K,
            ("ffn_down", Recipe::Q3_K_M) => {
                if layer < layers / 16 {
                    Q5K
                } else {
                    Q4K
                }
            }
            ("ffn_down", Recipe::Q3_K_L) => Q5K,
            ("ffn_down", Recipe::Q4_K_S) if layer < layers / 8 => Q5K,
            ("attn_output", Recipe::Q2_K) => Q3K,
            ("attn_output", Recipe::Q3_K_M) => Q4K,
            ("attn_output", Recipe::Q3_K_L) => Q5K,
            _ => base,
        }
    }
}

impl ModelSizes {
    /// Llama 2 and 3 of 70 billion parameters have few key/value heads, which deserve more bits.
    fn at_least_five_bits(self, dtype: StoredDtype) -> StoredDtype {
        let is_70b = self.layers == 80 && self.heads != self.key_value_heads;
        match dtype {
            StoredDtype::Q3K | StoredDtype::Q4K if is_70b => StoredDtype::Q5K,
            other => other,
        }
    }
}

/// `blk.3.attn_v.weight` → (3, `attn_v`).
fn layer_and_module(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, rest.rsplit_once('.')?.0))
}

/// What a row that is not whole blocks gets instead.
fn fallback(dtype: StoredDtype, row: usize) -> StoredDtype {
    use StoredDtype::{F16, Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let fits = |dtype: StoredDtype| row.is_multiple_of(dtype.block().0);
    if fits(dtype) {
        return dtype;
    }
    let smaller = match dtype {
        Q2K | Q3K => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        other => other,
    };
    if fits(smaller) { smaller } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: ModelSizes = ModelSizes { layers: 32, heads: 32, key_value_heads: 8, tied: false };

    #[test]
    fn names_come_back() {
        for (recipe, name, ..) in TABLE {
            assert_eq!(Recipe::named(&name.to_uppercase()), Some(recipe));
            assert_eq!(recipe.name(), name);
        }
        assert_eq!(Recipe::named("q9_k"), None);
    }

    #[test]
    fn q4_k_m_gives_more_bits_where_llama_cpp_does() {
        let down: Vec<usize> = (0..32)
            .filter(|i| {
                let name = format!("blk.{i}.ffn_down.weight");
                Recipe::Q4_K_M.dtype_of(&name, &[4096, 14336], WIDE) == StoredDtype::Q6K
            })
            .collect();
        // Llama 3 8B in Q4_K_M as llama.cpp makes it.
        assert_eq!(down, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        let of = |name: &str| Recipe::Q4_K_M.dtype_of(name, &[4096, 4096], WIDE);
        assert_eq!(of("output.weight"), StoredDtype::Q6K);
        assert_eq!(of("token_embd.weight"), StoredDtype::Q4K);
        assert_eq!(of("blk.0.attn_q.weight"), StoredDtype::Q4K);
        assert_eq!(Recipe::Q4_K_M.dtype_of("blk.0.attn_norm.weight", &[4096], WIDE), StoredDtype::F32);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        let tied = ModelSizes { tied: true, ..WIDE };
        let of = |recipe: Recipe, name: &str, row: usize| recipe.dtype_of(name, &[64, row], tied);
        assert_eq!(of(Recipe::Q4_K_M, "blk.1.attn_q.weight", 576), StoredDtype::Q5_0);
        assert_eq!(of(Recipe::Q4_K_M, "blk.1.ffn_down.weight", 1536), StoredDtype::Q6K);
        assert_eq!(of(Recipe::Q4_K_M, "token_embd.weight", 576), StoredDtype::Q8_0);
        assert_eq!(of(Recipe::Q2_K, "blk.1.ffn_up.weight", 576), StoredDtype::Q4_0);
        assert_eq!(of(Recipe::Q8_0, "blk.1.ffn_up.weight", 48), StoredDtype::F16);
        assert_eq!(of(Recipe::Q4_0, "token_embd.weight", 576), StoredDtype::Q8_0);
        assert_eq!(of(Recipe::Q4_0, "token_embd.weight", 512), StoredDtype::Q6K);
        let info = |dtype, row| TensorInfo { name: "x".into(), shape: vec![64, row], dtype };
        let tensors =
            [info(StoredDtype::Q5_0, 576), info(StoredDtype::Q6K, 1536), info(StoredDtype::F32, 576)];
        let note = Recipe::Q4_K_M.fallback_note(tensors.iter()).expect("a note");
        assert!(
            note.starts_with("1 of 2 matrices have rows of 576") && note.contains("blocks of 256"),
            "{note}"
        );
        assert_eq!(Recipe::Q8_0.fallback_note(tensors.iter()), None);
    }
}
