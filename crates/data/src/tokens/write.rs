//! Writing a shard: rows in, token files out, each of which is there whole or not at all. A run that was killed goes on
//! after its last whole file.

use std::path::{Path, PathBuf};

use foundry_formats::{TokenFileWriter, Tokenizer};
use sha2::{Digest as _, Sha256};

use super::lock::ShardLock;
use super::manifest::{
    FORMAT, FileRecord, Manifest, ShardCounts, Temporary, UNFINISHED, VERSION, file_name, stem,
};
use super::moment::{asks, today, told};
use super::set::check_content;
use super::settings::{fingerprint, hex, of_all, special_tokens, template};
use crate::IGNORED;
use crate::dataset::Sequence;
use crate::error::DataError;
use crate::load::{take_items, without_examples};
use crate::pipeline::{Part, Pass, Pipeline};
use crate::prepare::Preparation;
use crate::shape::Shape;
use crate::spec::{DataSpec, Source};
use crate::stream::CHUNK_BYTES;

/// Rows that are tokenised at once.
const ROWS_AT_ONCE: usize = 4096;
/// Documents after which a file ends, whatever their length: their offsets are held in memory.
const DOCUMENTS_OF_A_FILE: u64 = 1 << 22;

/// Part `index` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u32,
    /// Above `index`.
    pub of: u32,
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// What to tokenise, and where to.
#[derive(Clone, Debug)]
pub struct TokenizeSpec {
    /// Sources and masks. What concerns rows (`max_length`, packing, shuffling) is left to the run that reads the
    /// tokens.
    pub data: DataSpec,
    /// Which part.
    pub shard: Shard,
    /// Where to.
    pub dir: PathBuf,
    /// Tokens after which a file ends.
    pub tokens_per_file: u64,
    /// Replace a shard that was made from other data or with other settings.
    pub force: bool,
}

/// How far a shard is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Documents and tokens so far.
    pub counts: ShardCounts,
    /// Whole files so far.
    pub files: usize,
}

/// A shard that is complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenized {
    /// What was counted.
    pub counts: ShardCounts,
    /// Files written, and their bytes.
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Nothing was to be done.
    pub was_complete: bool,
    /// Files of an earlier attempt that were kept.
    pub kept: usize,
    /// What was wrong with the first rows that were left out.
    pub problems: Vec<String>,
}

/// Writes one shard of token files.
///
/// Shards divide the input files where there are at least as many of them as shards (and no source takes only some of
/// its rows), else the rows: row r goes to shard r mod n.
///
/// # Errors
/// Any [`DataError`] of reading; [`DataError::NotTokenized`] for settings that shards cannot follow;
/// [`DataError::TokenShards`] where the directory holds something else; [`DataError::ShardInUse`].
pub fn tokenize_shard(
    spec: &TokenizeSpec,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tokenized, DataError> {
    check(spec)?;
    let mut data = spec.data.clone();
    (data.max_length, data.packing, data.shuffle_dataset) = (None, false, false);
    let all = data.all_sources();
    let mut manifest = begin(spec, &data, &all, tokenizer)?;
    std::fs::create_dir_all(&spec.dir).map_err(|e| DataError::Io { path: spec.dir.clone(), source: e })?;
    let lock = ShardLock::take(&spec.dir, spec.shard)?;
    if asks(template(&data, tokenizer)) {
        let moment = data.rendered_at.or_else(|| told(&spec.dir, &manifest)).unwrap_or_else(today);
        (data.rendered_at, manifest.rendered_at) = (Some(moment), Some(moment));
    }
    let complete = spec.dir.join(format!("{}.json", stem(spec.shard.index, spec.shard.of)));
    if let Some(done) = earlier(&complete, &manifest, spec)? {
        return Ok(done);
    }
    let (sources, part) = deal(&all, spec.shard);
    if lock.is_some() {
        sweep_unfinished(spec)?;
    }
    let mut writing = Writing::new(spec, &data, &sources, part, tokenizer, manifest)?;
    writing.run(progress)?;
    writing.finish(&complete)
}

/// What shards cannot do.
fn check(spec: &TokenizeSpec) -> Result<(), DataError> {
    let refuse = |setting, remedy| Err(DataError::NotTokenized { setting, remedy });
    let sources = spec.data.all_sources();
    if sources.iter().any(|source| source.probability.is_some()) {
        return refuse("weight", "tokenise each source on its own, and mix the directories when training");
    }
    if spec.data.deduplicate && spec.shard.of > 1 {
        return refuse(
            "deduplicate",
            "equal rows may lie in different shards: tokenise in one shard (no --shard)",
        );
    }
    if sources.iter().flat_map(|source| &source.files).any(|file| file.token_part().is_some()) {
        return refuse("train", "these are token files already; name the files that they were made from");
    }
    Ok(())
}

/// The manifest of this shard before its first file.
fn begin(
    spec: &TokenizeSpec,
    data: &DataSpec,
    sources: &[Source],
    tokenizer: &Tokenizer,
) -> Result<Manifest, DataError> {
    let settings = of_all(data, sources)?;
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(format!(
            "{:?} {:?} {:?} {}",
            source.skip,
            source.take,
            source.fraction,
            source.files.len()
        ));
        for file in &source.files {
            hash.update(file.fingerprint()?);
        }
    }
    hash.update(format!("{settings:?} {} {:?}", data.seed, data.on_error));
    Ok(Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        shard: spec.shard.index,
        shards: spec.shard.of,
        tokenizer: fingerprint(tokenizer),
        shape: None,
        chat_template: template(data, tokenizer).map(str::to_owned),
        special_tokens: special_tokens(data, tokenizer, &[Shape::Text, Shape::Messages]),
        rendered_at: None,
        settings,
        inputs: hex(&hash.finalize()),
        files: Vec::new(),
        counts: ShardCounts::default(),
        next: None,
    })
}

/// Whether two manifests are of the same shard of the same data, as far as its rows need what they were made with.
fn is_same(a: &Manifest, b: &Manifest) -> bool {
    let of = |m: &Manifest| (m.version, m.shard, m.shards, m.inputs.clone());
    let moments = a.rendered_at == b.rendered_at || a.rendered_at.is_none() || b.rendered_at.is_none();
    of(a) == of(b) && a.tokenizer.fits(&b.tokenizer) && a.settings == b.settings && a.agrees(b) && moments
}

/// What an earlier run has left under this shard's name, if it is all there is to do.
fn earlier(
    complete: &Path,
    manifest: &Manifest,
    spec: &TokenizeSpec,
) -> Result<Option<Tokenized>, DataError> {
    if !complete.exists() {
        return Ok(None);
    }
    let check =
        |found: &Manifest, file: &FileRecord| check_content(&spec.dir.join(&file.name), file, found.version);
    let is_sound = |found: &Manifest| found.files.iter().all(|file| check(found, file).is_ok());
    match Manifest::read(complete) {
        Ok(found) if is_same(&found, manifest) && (!spec.force || is_sound(&found)) => {
            found.files.iter().try_for_each(|file| check(&found, file))?;
            let bytes = found.files.iter().map(|file| file.bytes).sum();
            let (counts, files) = (found.counts, found.files.len());
            Ok(Some(Tokenized {
                counts,
                files,
                bytes,
                was_complete: true,
                kept: files,
                problems: Vec::new(),
            }))
        }
        _ if spec.force => {
            std::fs::remove_file(complete)
                .map_err(|source| DataError::Io { path: complete.to_owned(), source })?;
            Ok(None)
        }
        Ok(_) => {
            let problem = format!(
                "shard {} is there already, made from other data, with other settings or by an older version; name \
                 another directory, or replace it with --force",
                spec.shard
            );
            Err(DataError::TokenShards { dir: spec.dir.clone(), problem })
        }
        Err(error) => Err(error),
    }
}

/// The sources of a shard, and the part of their rows.
fn deal(sources: &[Source], shard: Shard) -> (Vec<Source>, Part) {
    let files: usize = sources.iter().map(|source| source.files.len()).sum();
    let chooses = |s: &Source| s.skip > 0 || s.take.is_some() || s.fraction.is_some();
    if shard.of == 1 {
        return (sources.to_vec(), Part::Whole);
    }
    if files < shard.of as usize || sources.iter().any(chooses) {
        let (index, of) = (u64::from(shard.index), u64::from(shard.of));
        return (sources.to_vec(), Part::Shard { index, of });
    }
    let mut number = 0;
    let mut dealt = sources.to_vec();
    for source in &mut dealt {
        source.files.retain(|_| {
            let own = number % shard.of == shard.index;
            number += 1;
            own
        });
    }
    dealt.retain(|source| !source.files.is_empty());
    (dealt, Part::Whole)
}

/// A shard in the making.
struct Writing<'a> {
    spec: &'a TokenizeSpec,
    data: &'a DataSpec,
    tokenizer: &'a Tokenizer,
    preparation: Preparation<'a>,
    pipeline: Pipeline,
    manifest: Manifest,
    /// Counts of the whole files of an earlier run.
    before: ShardCounts,
    kept: usize,
    /// Counts of this run.
    counts: ShardCounts,
    /// The file in the making.
    file: Option<(TokenFileWriter, Temporary)>,
    eos: Vec<u32>,
    bos: Option<u32>,
    largest_id: u32,
}

impl<'a> Writing<'a> {
    fn new(
        spec: &'a TokenizeSpec,
        data: &'a DataSpec,
        sources: &'a [Source],
        part: Part,
        tokenizer: &'a Tokenizer,
        mut manifest: Manifest,
    ) -> Result<Self, DataError> {
        let preparation = Preparation::new(data, sources, tokenizer)?;
        forget_what_no_row_needs(&mut manifest, &preparation, data, tokenizer);
        let mut pipeline = Pipeline::new(data, sources, Pass { part, ..Pass::default() });
        let partial = partial_path(spec);
        // What was seen before the kill is not remembered, so that duplicates are looked for from the start.
        let earlier = Manifest::read(&partial).ok().filter(|m| is_same(m, &manifest) && !data.deduplicate);
        let goes_on = earlier.filter(|earlier| {
            let sound =
                |file: &FileRecord| check_content(&spec.dir.join(&file.name), file, earlier.version).is_ok();
            earlier.files.iter().all(sound)
                && earlier.next.as_ref().is_some_and(|next| pipeline.restore(next).is_ok())
        });
        let (before, kept) = match goes_on {
            Some(earlier) => {
                manifest.files = earlier.files;
                (earlier.counts, manifest.files.len())
            }
            None => {
                pipeline = Pipeline::new(data, sources, Pass { part, ..Pass::default() });
                (ShardCounts::default(), 0)
            }
        };
        let mut eos = data.eos_token_ids.clone();
        eos.extend(tokenizer.eos_token_id());
        let largest_id = manifest.tokenizer.ids.saturating_sub(1);
        let (bos, counts) = (tokenizer.bos_token_id(), ShardCounts::default());
        Ok(Self {
            spec,
            data,
            tokenizer,
            preparation,
            pipeline,
            manifest,
            before,
            kept,
            counts,
            file: None,
            eos,
            bos,
            largest_id,
        })
    }

    fn run(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), DataError> {
        loop {
            let tally = &mut self.preparation.tally;
            let items = take_items(&mut self.pipeline, tally, ROWS_AT_ONCE, CHUNK_BYTES)?;
            if items.is_empty() {
                return self.end_file();
            }
            for example in self.preparation.run(items)? {
                self.document(&example.sequence, example.continues)?;
            }
            self.adopt();
            let is_full = self.file.as_ref().is_some_and(|(file, _)| {
                file.tokens() >= self.spec.tokens_per_file || file.documents() >= DOCUMENTS_OF_A_FILE
            });
            if is_full {
                self.end_file()?;
            }
            progress(Progress { counts: self.before.plus(self.counts), files: self.manifest.files.len() });
        }
    }

    fn document(&mut self, sequence: &Sequence, continues: bool) -> Result<(), DataError> {
        let Sequence { tokens, labels } = sequence;
        let counts = &mut self.counts;
        let learned = labels.iter().filter(|&&label| label != IGNORED).count() as u64;
        let ends = labels.iter().skip(1).any(|&l| l >= 0 && self.eos.contains(&(l as u32)));
        counts.documents += 1;
        counts.tokens += tokens.len() as u64;
        counts.learned += learned;
        counts.nothing_learned += u64::from(learned == 0);
        counts.ends_learned += u64::from(ends);
        counts.double_bos += u64::from(self.bos.is_some_and(|bos| tokens.starts_with(&[bos, bos])));
        let failed = |error| DataError::TokenFile(Box::new(error));
        let path = self.spec.dir.join(self.next_name());
        let (file, _) = match &mut self.file {
            Some(file) => file,
            none => {
                let temporary = Temporary::of(&path);
                let file = TokenFileWriter::create(&temporary.path, self.largest_id).map_err(failed)?;
                none.insert((file, temporary))
            }
        };
        file.push(tokens, continues, |index| labels[index] != IGNORED).map_err(failed)
    }

    fn next_name(&self) -> String {
        file_name(self.manifest.shard, self.manifest.shards, self.manifest.files.len())
    }

    /// What the preparation has counted since this run began.
    fn adopt(&mut self) {
        let report = &self.preparation.report;
        let counts = &mut self.counts;
        (counts.blank, counts.skipped) = (report.blank as u64, report.skipped as u64);
        (counts.filtered, counts.deduplicated) = (report.filtered as u64, report.deduplicated as u64);
        counts.contaminated = report.contaminated.unwrap_or(0) as u64;
    }

    /// Gives the file in the making its name, and remembers where to go on.
    fn end_file(&mut self) -> Result<(), DataError> {
        let name = self.next_name();
        let path = self.spec.dir.join(&name);
        let Some((file, temporary)) = self.file.take() else { return Ok(()) };
        let written = file.finish().map_err(|error| DataError::TokenFile(Box::new(error)))?;
        temporary.publish(&path).map_err(|source| DataError::Io { path, source })?;
        let sha256 = hex(&written.sums_sha256);
        let (documents, tokens, learned) = (written.documents, written.tokens, written.learned);
        self.manifest.files.push(FileRecord {
            name,
            bytes: written.bytes,
            sha256,
            documents,
            tokens,
            learned,
        });
        let so_far = Manifest {
            counts: self.before.plus(self.counts),
            next: Some(self.pipeline.state()),
            ..self.manifest.clone()
        };
        so_far.write(&partial_path(self.spec))
    }

    /// Writes the manifest that makes the shard complete.
    fn finish(mut self, complete: &Path) -> Result<Tokenized, DataError> {
        self.adopt();
        self.manifest.counts = self.before.plus(self.counts);
        // A source may have shown its first usable row late.
        forget_what_no_row_needs(&mut self.manifest, &self.preparation, self.data, self.tokenizer);
        let Manifest { counts, ref files, .. } = self.manifest;
        if counts.documents == 0 && self.spec.shard.of == 1 {
            return Err(without_examples(&self.preparation.report));
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        let files = files.len();
        self.manifest.write(complete)?;
        sweep(self.spec, files)?;
        let problems = std::mem::take(&mut self.preparation.report.problems);
        Ok(Tokenized { counts, files, bytes, was_complete: false, kept: self.kept, problems })
    }
}

fn partial_path(spec: &TokenizeSpec) -> PathBuf {
    spec.dir.join(format!("{}.partial.json", stem(spec.shard.index, spec.shard.of)))
}

/// What a manifest says of templates and special tokens, by the shapes of the rows: shards of one job may have rows of
/// different sources.
fn forget_what_no_row_needs(
    manifest: &mut Manifest,
    preparation: &Preparation<'_>,
    data: &DataSpec,
    tokenizer: &Tokenizer,
) {
    let shapes: Vec<Shape> = preparation.report.sources.iter().filter_map(|source| source.format).collect();
    manifest.shape = preparation.report.format;
    manifest.special_tokens = special_tokens(data, tokenizer, &shapes);
    let has_chats = shapes.iter().any(|shape| shape.is_chat());
    manifest.chat_template = template(data, tokenizer).filter(|_| has_chats).map(str::to_owned);
    manifest.rendered_at = data.rendered_at.filter(|_| has_chats && asks(template(data, tokenizer)));
}

/// Removes what is left of earlier attempts at this shard: the manifest of a shard in the making, and files beyond the
/// last.
fn sweep(spec: &TokenizeSpec, files: usize) -> Result<(), DataError> {
    let Shard { index, of } = spec.shard;
    let own = format!("{}.", stem(index, of));
    let partial = format!("{own}partial.json");
    remove(spec, |name| {
        let number = name.strip_prefix(&own).and_then(|rest| rest.strip_suffix(".tokens")?.parse().ok());
        *name == partial || number.is_some_and(|number: usize| number >= files)
    })
}

/// Removes files that attempts at this shard were killed over; only for the one who holds the shard.
fn sweep_unfinished(spec: &TokenizeSpec) -> Result<(), DataError> {
    let own = format!(".{}.", stem(spec.shard.index, spec.shard.of));
    remove(spec, |name| name.starts_with(&own) && name.ends_with(UNFINISHED))
}

/// Removes files of the directory by their names.
fn remove(spec: &TokenizeSpec, is_over: impl Fn(&str) -> bool) -> Result<(), DataError> {
    let io = |path: PathBuf| |source| DataError::Io { path, source };
    for entry in std::fs::read_dir(&spec.dir).map_err(io(spec.dir.clone()))? {
        let path = entry.map_err(io(spec.dir.clone()))?.path();
        if path.file_name().is_some_and(|name| is_over(&name.to_string_lossy())) {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DataError::Io { path, source });
                }
                _ => {}
            }
        }
    }
    Ok(())
}
