//! A GGUF's tensors under Hugging Face names, with the rows of q_proj and k_proj in Hugging Face's order.
//!
//! llama.cpp rotates neighbouring pairs of a head's dimensions, Hugging Face pairs from its two halves; its converter
//! therefore stores row (head, half, i) at (head, i, half): `w.reshape(heads, 2, d/2, in).swapaxes(1, 2)`.

use super::Gguf;
use super::config::{self, Shape};
use super::names::hf_name;
use crate::tensors::{check_range, unknown_tensor};
use crate::{FormatError, TensorInfo, TensorSource};

/// Tensors that describe something else than weights and are read elsewhere.
const NOT_WEIGHTS: [&str; 1] = ["rope_freqs.weight"];

pub(super) struct HfView {
    gguf: Gguf,
    /// Sorted by Hugging Face name.
    tensors: Vec<TensorInfo>,
    /// Where each is in the file; parallel to `tensors`.
    places: Vec<Place>,
}

struct Place {
    /// Index into the GGUF's tensors.
    stored: usize,
    /// Number of heads whose rows are permuted; `None` for all but q and k.
    heads: Option<usize>,
}

impl HfView {
    pub(super) fn new(gguf: Gguf) -> Result<Self, FormatError> {
        config::build(&gguf)?; // refuses what is not a Llama
        let shape = Shape::read(&gguf)?;
        let mut entries = Vec::new();
        for (stored, info) in gguf.tensors().iter().enumerate() {
            if NOT_WEIGHTS.contains(&info.name.as_str()) {
                continue;
            }
            let Some(name) = hf_name(&info.name) else {
                return Err(gguf.unsupported(format!("tensor `{}` has no place in a Llama model", info.name)));
            };
            let heads = heads_of(&info.name, &shape);
            if let Some(heads) = heads {
                let rows = info.shape.first().copied().unwrap_or(1);
                if heads.checked_mul(2).is_none_or(|pairs| !rows.is_multiple_of(pairs)) {
                    let problem =
                        format!("tensor `{}` has {rows} rows, which {heads} heads cannot share", info.name);
                    return Err(gguf.unsupported(problem));
                }
            }
            entries.push((TensorInfo { name, ..info.clone() }, Place { stored, heads }));
        }
        entries.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let (tensors, places) = entries.into_iter().unzip();
        Ok(Self { gguf, tensors, places })
    }

    fn index(&self, name: &str) -> Result<usize, FormatError> {
        let found = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        found.map_err(|_| unknown_tensor(self.gguf.path(), name, &self.tensors))
    }

    /// Reads row by row, each from where the converter put it.
    fn read_permuted(
        &self,
        i: usize,
        heads: usize,
        start: usize,
        dst: &mut [f32],
    ) -> Result<(), FormatError> {
        let info = &self.tensors[i];
        check_range(self.gguf.path(), info, start, dst.len())?;
        let rows = info.shape[0];
        let width = info.elements() / rows;
        let head_dim = rows / heads;
        let mut done = 0;
        while done < dst.len() {
            let (row, column) = ((start + done) / width, (start + done) % width);
            let len = (width - column).min(dst.len() - done);
            let from = stored_row(row, head_dim) * width + column;
            self.gguf.read_tensor(self.places[i].stored, from, &mut dst[done..done + len])?;
            done += len;
        }
        Ok(())
    }
}

/// Where the converter put Hugging Face's row: (head, half, i) → (head, i, half).
pub(super) fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, i) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * i + half
}

fn heads_of(gguf_name: &str, shape: &Shape) -> Option<usize> {
    let heads = if gguf_name.contains(".attn_q.") {
        shape.num_attention_heads
    } else if gguf_name.contains(".attn_k.") {
        shape.num_key_value_heads
    } else {
        return None;
    };
    usize::try_from(heads).ok()
}

impl TensorSource for HfView {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let i = self.index(name)?;
        match self.places[i].heads {
            Some(heads) => self.read_permuted(i, heads, start, dst),
            None => self.gguf.read_tensor(self.places[i].stored, start, dst),
        }
    }

    fn read_i64(&self, name: &str, _start: usize, _dst: &mut [i64]) -> Result<(), FormatError> {
        let info = &self.tensors[self.index(name)?];
        let (path, name) = (self.gguf.path().to_owned(), info.name.clone());
        Err(FormatError::TensorDtype { path, name, dtype: info.dtype, wanted: "an integer type" })
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        let Ok(i) = self.index(name) else { return Ok(None) };
        let place = &self.places[i];
        if place.heads.is_some() {
            return Ok(None);
        }
        Ok(Some(&self.gguf.file.bytes()?[self.gguf.ranges[place.stored].clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::stored_row;

    #[test]
    fn rows_go_where_the_converter_puts_them() {
        // Two heads of four dimensions: reshape(2, 2, 2).swapaxes(1, 2) of 0..8.
        let stored: Vec<usize> = (0..8).map(|row| stored_row(row, 4)).collect();
        assert_eq!(stored, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
