//! Sharded checkpoints: `model.safetensors.index.json` and the files it names, read and written.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::file::SafetensorsFile;
use super::writer::{Entry, Writer, write_atomically};
use super::{INDEX_FILE, SINGLE_FILE};
use crate::json::read_object;
use crate::tensors::unknown_tensor;
use crate::{FormatError, TensorInfo, TensorSource};

/// transformers' default for `max_shard_size`: 50 GB (decimal).
pub const DEFAULT_MAX_SHARD_SIZE: u64 = 50_000_000_000;

/// All shards of a checkpoint, each tensor read from the file that the index names for it.
pub(crate) struct ShardedFiles {
    index: PathBuf,
    files: Vec<SafetensorsFile>,
    tensors: Vec<TensorInfo>,
    /// Which of `files` holds each tensor; parallel to `tensors`.
    file_of: Vec<usize>,
}

impl ShardedFiles {
    /// Opens the index and every file it names, and checks each placement. Tensors that a shard holds but the index
    /// does not place there are not part of the checkpoint (transformers' rule).
    pub(crate) fn open(index: &Path) -> Result<Self, FormatError> {
        let weight_map = read_weight_map(index)?;
        let dir = index.parent().unwrap_or(Path::new("."));
        let mut files = Vec::new();
        let mut opened: HashMap<String, usize> = HashMap::new();
        let mut tensors = Vec::new();
        let mut file_of = Vec::new();
        for (tensor, file) in weight_map {
            let which = match opened.get(&file) {
                Some(&which) => which,
                None => {
                    let path = dir.join(&file);
                    if !path.exists() {
                        return Err(FormatError::ShardMissing { index: index.to_owned(), file, tensor });
                    }
                    files.push(SafetensorsFile::open(&path)?);
                    opened.insert(file.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            let info = files[which].find(&tensor).cloned().ok_or_else(|| FormatError::ShardLacksTensor {
                index: index.to_owned(),
                file: file.clone(),
                tensor: tensor.clone(),
            })?;
            tensors.push(info);
            file_of.push(which);
        }
        Ok(Self { index: index.to_owned(), files, tensors, file_of })
    }

    fn file_with(&self, name: &str) -> Result<&SafetensorsFile, FormatError> {
        let i = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name));
        let i = i.map_err(|_| unknown_tensor(&self.index, name, &self.tensors))?;
        Ok(&self.files[self.file_of[i]])
    }
}

impl TensorSource for ShardedFiles {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn read_f32(&self, name: &str, start: usize, dst: &mut [f32]) -> Result<(), FormatError> {
        self.file_with(name)?.read_f32(name, start, dst)
    }

    fn read_i64(&self, name: &str, start: usize, dst: &mut [i64]) -> Result<(), FormatError> {
        self.file_with(name)?.read_i64(name, start, dst)
    }

    fn raw(&self, name: &str) -> Result<Option<&[u8]>, FormatError> {
        match self.file_with(name) {
            Ok(file) => file.raw(name),
            Err(_) => Ok(None),
        }
    }
}

/// `weight_map` of an index, sorted by tensor name. File names must be plain: an index from a stranger must not
/// reach outside its directory.
fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>, FormatError> {
    let invalid = |problem: String| FormatError::InvalidIndex { path: index.to_owned(), problem };
    let object = read_object(index)?;
    let map = object.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| invalid("it has no object `weight_map`".to_owned()))?;
    let mut placements = BTreeMap::new();
    for (tensor, file) in map {
        let file =
            file.as_str().ok_or_else(|| invalid(format!("the file of tensor `{tensor}` is not a string")))?;
        let plain = !file.is_empty() && file != "." && file != ".." && !file.contains(['/', '\\', '\0']);
        if !plain {
            return Err(invalid(format!(
                "tensor `{tensor}` names the file `{file}`, which is not a plain file name"
            )));
        }
        placements.insert(tensor.clone(), file.to_owned());
    }
    if placements.is_empty() {
        return Err(invalid("its `weight_map` is empty".to_owned()));
    }
    Ok(placements)
}

/// Writes a checkpoint as transformers does: one `model.safetensors`, or shards of at most `max_shard_size` bytes of
/// data with an index. Tensors are written in the declared order, in pieces if they are large.
///
/// Nothing is visible under its final name before [`ShardedWriter::finish`], which renames the complete files, writes
/// the index last, and removes the weights of an earlier save in the other layout (a stale `model.safetensors` would
/// win over a new index).
#[derive(Debug)]
pub struct ShardedWriter {
    dir: PathBuf,
    /// The shards not begun yet, last first: (file name, tensors).
    waiting: Vec<(String, Vec<Entry>)>,
    current: Option<Writer>,
    complete: Vec<Writer>,
    /// Tensor → file, of all shards; empty for a single file.
    weight_map: BTreeMap<String, String>,
    file_names: Vec<String>,
    total_size: u64,
    total_parameters: u64,
}

impl ShardedWriter {
    /// Plans the shards. A tensor larger than `max_shard_size` gets a shard of its own.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// As [`Writer::create`]: duplicate names or quantised types are the caller's mistake.
    pub fn create(dir: &Path, entries: &[Entry], max_shard_size: u64) -> Result<Self, FormatError> {
        std::fs::create_dir_all(dir).map_err(FormatError::io(dir, "create"))?;
        let shards = plan_shards(entries, max_shard_size);
        let count = shards.len();
        let mut waiting = Vec::new();
        let mut weight_map = BTreeMap::new();
        for (i, shard) in shards.into_iter().enumerate() {
            let name = match count {
                1 => SINGLE_FILE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            if count > 1 {
                weight_map.extend(shard.iter().map(|e| (e.name.clone(), name.clone())));
            }
            waiting.push((name, shard));
        }
        let file_names = waiting.iter().map(|(name, _)| name.clone()).collect();
        waiting.reverse();
        let total_size = entries.iter().map(|e| e.bytes() as u64).sum();
        let total_parameters = entries.iter().map(|e| e.elements() as u64).sum();
        let (dir, current, complete) = (dir.to_owned(), None, Vec::new());
        Ok(Self { dir, waiting, current, complete, weight_map, file_names, total_size, total_parameters })
    }

    /// Appends elements of the tensor `name`; see [`Writer::write_f32`].
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// As [`Writer::write_f32`].
    pub fn write_f32(&mut self, name: &str, values: &[f32]) -> Result<(), FormatError> {
        self.writer()?.write_f32(name, values)
    }

    /// Appends stored bytes of the tensor `name`; see [`Writer::write_bytes`].
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// As [`Writer::write_bytes`].
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
        self.writer()?.write_bytes(name, bytes)
    }

    /// Flushes everything to disk and gives the files their names.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// If a declared tensor was not written completely.
    pub fn finish(self) -> Result<(), FormatError> {
        self.close(Writer::finish)
    }

    /// As [`ShardedWriter::finish`], without flushing the weights; see [`Writer::finish_unflushed`].
    ///
    /// # Errors
    /// [`FormatError::Io`].
    ///
    /// # Panics
    /// As [`ShardedWriter::finish`].
    pub fn finish_unflushed(self) -> Result<(), FormatError> {
        self.close(Writer::finish_unflushed)
    }

    fn close(mut self, finish: fn(Writer) -> Result<(), FormatError>) -> Result<(), FormatError> {
        while !self.waiting.is_empty() {
            self.writer()?; // a shard of empty tensors only, or (a caller's mistake) tensors that were never written
            self.complete.extend(self.current.take());
        }
        self.complete.extend(self.current.take());
        for writer in self.complete.drain(..) {
            finish(writer)?;
        }
        if self.weight_map.is_empty() {
            return self.remove_stale(&[INDEX_FILE.to_owned()]);
        }
        let metadata = json!({ "total_parameters": self.total_parameters, "total_size": self.total_size });
        let index = json!({ "metadata": metadata, "weight_map": self.weight_map });
        let mut text = serde_json::to_string_pretty(&index).expect("maps of strings and numbers serialise");
        text.push('\n');
        write_atomically(&self.dir.join(INDEX_FILE), text.as_bytes())?;
        self.remove_stale(&[SINGLE_FILE.to_owned()])
    }

    /// The writer of the shard that is being filled, moving on when one is full.
    fn writer(&mut self) -> Result<&mut Writer, FormatError> {
        if self.current.as_ref().is_none_or(Writer::is_complete)
            && let Some((name, entries)) = self.waiting.pop()
        {
            self.complete.extend(self.current.take());
            let metadata = [("format".to_owned(), "pt".to_owned())];
            self.current = Some(Writer::create(&self.dir.join(name), &entries, &metadata)?);
        }
        Ok(self.current.as_mut().expect("the plan has at least one shard"))
    }

    /// Removes `also`, and shards of an earlier save that are not part of this one.
    fn remove_stale(&self, also: &[String]) -> Result<(), FormatError> {
        let listing = std::fs::read_dir(&self.dir).map_err(FormatError::io(&self.dir, "list"))?;
        for entry in listing.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let old_shard = is_shard_name(&name) && !self.file_names.contains(&name);
            if old_shard || also.contains(&name) {
                std::fs::remove_file(entry.path()).map_err(FormatError::io(&entry.path(), "remove"))?;
            }
        }
        Ok(())
    }
}

/// Saves a checkpoint by asking `produce` for each tensor in turn: it gets the entry and the writer, and calls
/// [`ShardedWriter::write_f32`] (or `write_bytes`) with that entry's name until the tensor is complete.
///
/// # Errors
/// What `produce` returns, and [`FormatError::Io`] (converted with `From`).
///
/// # Panics
/// As [`ShardedWriter::finish`].
pub fn save_sharded<E: From<FormatError>>(
    dir: &Path,
    entries: &[Entry],
    max_shard_size: u64,
    mut produce: impl FnMut(&Entry, &mut ShardedWriter) -> Result<(), E>,
) -> Result<(), E> {
    let mut writer = ShardedWriter::create(dir, entries, max_shard_size)?;
    for entry in entries {
        produce(entry, &mut writer)?;
    }
    Ok(writer.finish()?)
}

/// Fills shards in the given order, as huggingface_hub's `split_state_dict_into_shards_factory` does: a tensor that
/// does not fit any more begins the next shard; one that is larger than a shard is a shard.
fn plan_shards(entries: &[Entry], max_shard_size: u64) -> Vec<Vec<Entry>> {
    let mut shards: Vec<Vec<Entry>> = Vec::new();
    let mut current: Vec<Entry> = Vec::new();
    let mut size = 0u64;
    for entry in entries {
        let bytes = entry.bytes() as u64;
        if !current.is_empty() && size + bytes > max_shard_size {
            shards.push(std::mem::take(&mut current));
            size = 0;
        }
        current.push(entry.clone());
        size += bytes;
    }
    if !current.is_empty() || shards.is_empty() {
        shards.push(current);
    }
    shards
}

/// `model-00001-of-00002.safetensors`
fn is_shard_name(name: &str) -> bool {
    let Some(middle) = name.strip_prefix("model-").and_then(|n| n.strip_suffix(".safetensors")) else {
        return false;
    };
    let Some((i, n)) = middle.split_once("-of-") else { return false };
    [i, n].iter().all(|digits| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
}
