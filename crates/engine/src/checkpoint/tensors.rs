//! `optimizer.safetensors`: the exact values of the parameters and the optimiser's state; and
//! `parameters.safetensors`: the values alone.

use super::{CheckpointError, OPTIMIZER, ResumeError, VALUES};
use crate::error::EngineError;
use crate::model::Trainable;
use crate::optim::Optimizer;
use foundry_formats::safetensors::{self, Entry, Writer};
use foundry_formats::{FormatError, StoredDtype, TensorSource};
use foundry_kernels::{Backend, Buffer, Dtype, SharedBuffer};
use std::path::Path;

/// Numbers moved between device and disk at a time.
const PIECE: usize = 1 << 20;

/// Kind of a parameter's value, beside the optimiser's kinds.
const VALUE: &str = "param";

/// Name, shape and stored type of a tensor that a file must hold.
type Wanted = (String, Vec<usize>, StoredDtype);

/// How a buffer is stored: codes as bytes, everything else as f32, in which bfloat16 is exact.
fn stored(dtype: Dtype) -> StoredDtype {
    if dtype == Dtype::U8 { StoredDtype::U8 } else { StoredDtype::F32 }
}

/// A tensor to be written; its numbers are shared with the run.
pub(crate) struct Gathered {
    entry: Entry,
    numbers: SharedBuffer,
}

/// The values of the parameters, and the state of the optimiser if there is one.
pub(crate) fn gather(
    backend: &dyn Backend,
    model: &dyn Trainable,
    optimizer: Option<&dyn Optimizer>,
) -> Vec<Gathered> {
    let parameters = model.parameters();
    let gathered = |kind: &str, index: usize, shape: &[usize], buffer: &Buffer| Gathered {
        entry: Entry::new(format!("{kind}.{}", parameters[index].name), stored(buffer.dtype()), shape),
        numbers: backend.share(buffer),
    };
    let values = parameters.iter().enumerate().map(|(i, p)| gathered(VALUE, i, &p.shape, &p.value));
    let state = optimizer.map(Optimizer::state).unwrap_or_default();
    values.chain(state.iter().map(|t| gathered(t.kind, t.parameter, &t.shape, t.buffer))).collect()
}

/// Writes the file at `path`. Not flushed to disk.
pub(crate) fn write(path: &Path, tensors: &[Gathered]) -> Result<(), FormatError> {
    let entries: Vec<Entry> = tensors.iter().map(|tensor| tensor.entry.clone()).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())];
    let mut writer = Writer::create(path, &entries, &metadata)?;
    for Gathered { entry: Entry { name, .. }, numbers } in tensors {
        let elements = numbers.len();
        if numbers.dtype() == Dtype::U8 {
            let mut codes = vec![0; elements.min(PIECE)];
            for start in (0..elements).step_by(PIECE) {
                let codes = &mut codes[..PIECE.min(elements - start)];
                numbers.read_u8(start, codes);
                writer.write_bytes(name, codes)?;
            }
            continue;
        }
        let mut piece = vec![0.0; elements.min(PIECE)];
        for start in (0..elements).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(elements - start)];
            numbers.read(start, piece);
            writer.write_f32(name, piece)?;
        }
    }
    writer.finish_unflushed()
}

/// Reads the file in `dir` back, bit for bit. Names and shapes are compared before anything is overwritten.
pub(crate) fn restore(
    dir: &Path,
    backend: &dyn Backend,
    model: &mut dyn Trainable,
    optimizer: &mut dyn Optimizer,
) -> Result<(), EngineError> {
    let path = dir.join(OPTIMIZER);
    let source = safetensors::open(&path).map_err(CheckpointError::from)?;
    let names: Vec<String> = model.parameters().iter().map(|p| p.name.clone()).collect();
    let named = |kind: &str, index: usize| format!("{kind}.{}", names[index]);
    let values = model
        .parameters()
        .iter()
        .enumerate()
        .map(|(i, p)| (named(VALUE, i), p.shape.clone(), stored(p.value.dtype())));
    let state = optimizer.state();
    let state = state.into_iter().map(|t| (named(t.kind, t.parameter), t.shape, stored(t.buffer.dtype())));
    let wanted: Vec<Wanted> = values.chain(state).collect();
    compare(source.as_ref(), &wanted)
        .map_err(|problem| ResumeError::OtherTensors { path: path.clone(), problem })?;

    for (index, parameter) in model.parameters_mut().iter_mut().enumerate() {
        read(source.as_ref(), &named(VALUE, index), backend, &mut parameter.value)?;
    }
    for tensor in optimizer.state_mut() {
        read(source.as_ref(), &named(tensor.kind, tensor.parameter), backend, tensor.buffer)?;
    }
    model.after_update(backend);
    Ok(())
}

/// Loads the values of the parameters, and nothing else, from the checkpoint in `dir`: what
/// `load_best_model_at_end` asks for. The checkpoint is verified first ([`super::open`]).
///
/// # Errors
/// A damaged checkpoint, one without exact values, one of another model.
pub fn load_values(dir: &Path, backend: &dyn Backend, model: &mut dyn Trainable) -> Result<(), EngineError> {
    super::open(dir)?;
    let found = [OPTIMIZER, VALUES].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
    let path = found.ok_or_else(|| ResumeError::ModelOnly { path: dir.to_path_buf() })?;
    let source = safetensors::open(&path).map_err(CheckpointError::from)?;
    let wanted: Vec<Wanted> = model
        .parameters()
        .iter()
        .map(|p| (format!("{VALUE}.{}", p.name), p.shape.clone(), stored(p.value.dtype())))
        .collect();
    present(source.as_ref(), &wanted).map_err(|problem| ResumeError::OtherTensors { path, problem })?;
    for ((name, ..), parameter) in wanted.iter().zip(model.parameters_mut()) {
        read(source.as_ref(), name, backend, &mut parameter.value)?;
    }
    model.after_update(backend);
    Ok(())
}

/// The file must hold exactly these tensors.
fn compare(source: &dyn TensorSource, wanted: &[Wanted]) -> Result<(), String> {
    present(source, wanted)?;
    let known = |name: &str| wanted.iter().any(|(wanted, ..)| wanted == name);
    if source.tensors().len() == wanted.len() {
        return Ok(());
    }
    match source.tensors().iter().find(|tensor| !known(&tensor.name)) {
        Some(tensor) => Err(format!("it has a tensor '{}' that this run does not train", tensor.name)),
        None => Ok(()),
    }
}

/// The file must hold these tensors, in these shapes and types.
fn present(source: &dyn TensorSource, wanted: &[Wanted]) -> Result<(), String> {
    for (name, shape, dtype) in wanted {
        match source.find(name) {
            None => return Err(format!("it has no tensor '{name}'")),
            Some(found) if found.shape != *shape => {
                return Err(format!("tensor '{name}' has shape {:?}, this run's has {shape:?}", found.shape));
            }
            Some(found) if found.dtype != *dtype => {
                return Err(format!("tensor '{name}' is {:?}, this run's is {dtype:?}", found.dtype));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn read(
    source: &dyn TensorSource,
    name: &str,
    backend: &dyn Backend,
    buffer: &mut Buffer,
) -> Result<(), CheckpointError> {
    let elements = buffer.len();
    if buffer.dtype() == Dtype::U8 {
        let mut codes = vec![0; elements.min(PIECE)];
        for start in (0..elements).step_by(PIECE) {
            let codes = &mut codes[..PIECE.min(elements - start)];
            let mut numbers = vec![0; codes.len()];
            source.read_i64(name, start, &mut numbers)?;
            codes.iter_mut().zip(numbers).for_each(|(code, number)| *code = number as u8);
            backend.upload_u8(codes, buffer, start);
        }
        return Ok(());
    }
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        source.read_f32(name, start, piece)?;
        backend.upload(piece, buffer, start);
    }
    Ok(())
}
