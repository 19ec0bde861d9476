//! `optimizer.safetensors`: the exact values of the parameters and the optimiser's state.

use super::{CheckpointError, OPTIMIZER, ResumeError};
use crate::error::EngineError;
use crate::model::Trainable;
use crate::optim::Optimizer;
use foundry_formats::safetensors::{self, Entry, Writer};
use foundry_formats::{StoredDtype, TensorSource};
use foundry_kernels::{Backend, Buffer};
use std::path::Path;

/// Numbers moved between device and disk at a time.
const PIECE: usize = 1 << 20;

/// Kind of a parameter's value, beside the optimiser's kinds.
const VALUE: &str = "param";

/// Writes the file into `dir`. Flushed to disk when this returns.
pub(crate) fn write(
    dir: &Path,
    backend: &dyn Backend,
    model: &dyn Trainable,
    optimizer: &dyn Optimizer,
) -> Result<(), CheckpointError> {
    let parameters = model.parameters();
    let values = parameters.iter().enumerate().map(|(index, p)| (VALUE, index, &p.value));
    let state = optimizer.state().into_iter().map(|t| (t.kind, t.parameter, t.buffer));
    let tensors: Vec<(String, &[usize], &Buffer)> = values
        .chain(state)
        .map(|(kind, index, buffer)| {
            (format!("{kind}.{}", parameters[index].name), parameters[index].shape.as_slice(), buffer)
        })
        .collect();
    let entries: Vec<Entry> =
        tensors.iter().map(|(name, shape, _)| Entry::new(name.clone(), StoredDtype::F32, shape)).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())];
    let mut writer = Writer::create(&dir.join(OPTIMIZER), &entries, &metadata)?;
    for (name, shape, buffer) in &tensors {
        let elements: usize = shape.iter().product();
        let mut piece = vec![0.0; elements.min(PIECE)];
        for start in (0..elements).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(elements - start)];
            backend.download(buffer, start, piece);
            writer.write_f32(name, piece)?;
        }
    }
    Ok(writer.finish()?)
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
    let shapes: Vec<(String, Vec<usize>)> =
        model.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
    let expected = |kind: &str, index: usize| (format!("{kind}.{}", shapes[index].0), &shapes[index].1);
    let mut wanted: Vec<_> = (0..shapes.len()).map(|index| expected(VALUE, index)).collect();
    wanted.extend(optimizer.state().iter().map(|tensor| expected(tensor.kind, tensor.parameter)));
    compare(source.as_ref(), &wanted)
        .map_err(|problem| ResumeError::OtherTensors { path: path.clone(), problem })?;

    for (index, parameter) in model.parameters_mut().iter_mut().enumerate() {
        read(source.as_ref(), &expected(VALUE, index).0, backend, &mut parameter.value)?;
    }
    for tensor in optimizer.state_mut() {
        read(source.as_ref(), &expected(tensor.kind, tensor.parameter).0, backend, tensor.buffer)?;
    }
    model.after_update(backend);
    Ok(())
}

/// The file must hold exactly these tensors.
fn compare(source: &dyn TensorSource, wanted: &[(String, &Vec<usize>)]) -> Result<(), String> {
    for (name, shape) in wanted {
        match source.find(name) {
            None => return Err(format!("it has no tensor '{name}'")),
            Some(found) if found.shape != **shape => {
                return Err(format!("tensor '{name}' has shape {:?}, this run's has {shape:?}", found.shape));
            }
            Some(found) if found.dtype != StoredDtype::F32 => {
                return Err(format!("tensor '{name}' is {:?}, checkpoints hold F32", found.dtype));
            }
            Some(_) => {}
        }
    }
    let known = |name: &str| wanted.iter().any(|(wanted, _)| wanted == name);
    if source.tensors().len() == wanted.len() {
        return Ok(());
    }
    match source.tensors().iter().find(|tensor| !known(&tensor.name)) {
        Some(tensor) => Err(format!("it has a tensor '{}' that this run does not train", tensor.name)),
        None => Ok(()),
    }
}

fn read(
    source: &dyn TensorSource,
    name: &str,
    backend: &dyn Backend,
    buffer: &mut Buffer,
) -> Result<(), CheckpointError> {
    let elements = buffer.len();
    let mut piece = vec![0.0; elements.min(PIECE)];
    for start in (0..elements).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(elements - start)];
        source.read_f32(name, start, piece)?;
        backend.upload(piece, buffer, start);
    }
    Ok(())
}
