//! A vocabulary that has grown: tokens were added, and embedding and head get a row for each.
//!
//! New rows are the mean of the old ones (Hewitt 2021), as transformers 5 makes them but for its noise of 1e-9 of the
//! covariance, so that what is frozen need not be saved. Tables that PEFT saved with an adapter come first.

use crate::families::Slot;
use crate::lora::AdapterTensors;
use crate::{DecoderConfig, LoraSpec, ModelError};
use foundry_formats::{FormatError, TensorInfo, TensorSource};
use std::collections::BTreeMap;
use std::path::Path;

/// Rows read at a time.
const ROWS: usize = 1024;

/// Rows that the embedding must have for the adapter in `dir`: those of its tables, or up to the last one that it
/// trains by itself; 0 if it says nothing about the vocabulary.
///
/// # Errors
/// An adapter that cannot be read.
pub fn adapter_vocabulary(dir: &Path) -> Result<usize, ModelError> {
    let spec = LoraSpec::from_adapter(dir)?;
    let adapter = AdapterTensors::open(dir, &spec)?;
    let is_table = |name: &str| [".embed_tokens.weight", ".lm_head.weight"].iter().any(|e| name.ends_with(e));
    let own = adapter.tensors().iter().filter(|info| is_table(&info.name));
    let tables = own.chain(adapter.tables().map(|(_, info)| info)).filter_map(|info| info.shape.first());
    let trained = spec.trainable_token_indices.iter().flatten().map(|id| *id as usize + 1);
    Ok(tables.copied().chain(trained).max().unwrap_or(0))
}

/// The base's tensors with `config.vocab_size` rows in embedding and head. `adapter`: the directory of one that may
/// hold the resized tables.
///
/// # Errors
/// Files that cannot be read.
pub fn with_vocabulary<'a>(
    base: Box<dyn TensorSource + 'a>,
    config: &DecoderConfig,
    adapter: Option<&Path>,
) -> Result<Box<dyn TensorSource + 'a>, ModelError> {
    let adapter = match adapter {
        Some(dir) => Some(AdapterTensors::open(dir, &LoraSpec::from_adapter(dir)?)?),
        None => None,
    };
    let name = |slot| format!("{}.weight", config.family.module(slot, 0));
    let (embedding, head) = (name(Slot::EmbedTokens), name(Slot::LmHead));
    let mut tables = BTreeMap::new();
    for name in [&embedding, &head] {
        let Some(info) = base.find(name) else { continue };
        let stored = |wanted: &str| {
            let adapter = adapter.as_ref()?;
            adapter.tables().find(|(table, _)| *table == wanted).map(|(table, info)| (table.to_owned(), info))
        };
        // A tied base has no head of its own; PEFT calls the table so where the embedding is trained in full.
        let stored = stored(name)
            .or_else(|| stored(&head).filter(|_| *name == embedding && base.find(&head).is_none()));
        if let Some((table, stored)) = stored {
            let shape = stored.shape.clone();
            tables.insert(name.clone(), Table { shape, rows: Rows::OfAdapter(table) });
        } else if let &[old, width] = info.shape.as_slice()
            && old < config.vocab_size
            && old > 0
        {
            let mean = mean_row(base.as_ref(), name, [old, width])?;
            let shape = vec![config.vocab_size, width];
            tables.insert(name.clone(), Table { shape, rows: Rows::Mean { old, mean } });
        }
    }
    if tables.is_empty() {
        return Ok(base);
    }
    let shaped = |info: &TensorInfo| match tables.get(&info.name) {
        Some(table) => TensorInfo { shape: table.shape.clone(), ..info.clone() },
        None => info.clone(),
    };
    let infos = base.tensors().iter().map(shaped).collect();
    Ok(Box::new(Grown { base, adapter, infos, tables }))
}

/// The mean of all rows of a table.
fn mean_row(
    source: &dyn TensorSource,
    name: &str,
    [rows, width]: [usize; 2],
) -> Result<Vec<f32>, FormatError> {
    let mut sums = vec![0f64; width];
    let mut piece = vec![0f32; ROWS.min(rows) * width];
    for first in (0..rows).step_by(ROWS) {
        let piece = &mut piece[..ROWS.min(rows - first) * width];
        source.read_f32(name, first * width, piece)?;
        for row in piece.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
    Ok(sums.into_iter().map(|sum| (sum / rows as f64) as f32).collect())
}

/// Tensors of a base whose tables have grown.
struct Grown<'a> {
    base: Box<dyn TensorSource + 'a>,
    adapter: Option<AdapterTensors>,
    infos: Vec<TensorInfo>,
    tables: BTreeMap<String, Table>,
}

struct Table {
    shape: Vec<usize>,
    rows: Rows,
}

enum Rows {
    /// The base's, then as many of these as are missing.
    Mean { old: usize, mean: Vec<f32> },
    /// All from the adapter's file, which calls the table so.
    OfAdapter(String),
}

impl TensorSource for Grown<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        let (old, mean) = match self.tables.get(name).map(|table| &table.rows) {
            None => return self.base.read_f32(name, start, dst),
            Some(Rows::OfAdapter(table)) => {
                let adapter = self.adapter.as_ref().expect("only an adapter's file has such tables");
                return adapter.read_table(table, start, dst);
            }
            Some(Rows::Mean { old, mean }) => (*old, mean),
        };
        let split = (old * mean.len()).saturating_sub(start).min(dst.len());
        let (of_base, new) = dst.split_at_mut(split);
        if !of_base.is_empty() {
            self.base.read_f32(name, start, of_base)?;
        }
        for (at, value) in (start + split..).zip(new) {
            *value = mean[at % mean.len()];
        }
        Ok(())
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.base.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        if self.tables.contains_key(name) { Ok(None) } else { self.base.raw(name) }
    }
}
