//! Where weights come from: the trait, and safetensors files with what is said when they cannot be
//! read.
//!
//! Weight files of a directory are mapped, not read: a tensor's pages come from disk when the
//! tensor is asked for.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};

use super::config::DecoderConfig;
use super::content::Content;
use super::gguf::GgufWeights;
use super::matrix::Matrix;
use super::source::{ModelFiles, json};
use crate::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Weights by the names that Hugging Face gives them.
pub(crate) trait WeightSource {
    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool;

    /// Whether what a family adds to the weights of its norms has been added already.
    fn norms_have_offset(&self) -> bool {
        false
    }

    /// Reads one tensor, checks its shape, converts it and moves it to the device.
    ///
    /// # Errors
    /// A missing tensor, one of another shape, or one that cannot be converted, by name.
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor>;

    /// Reads an `[out, in]` matrix whose rows are looked up.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`].
    fn table(
        &self,
        name: &str,
        (out, input): (usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Matrix> {
        Ok(Matrix::Dense(self.tensor(
            name,
            &[out, input],
            dtype,
            device,
        )?))
    }

    /// Reads the `[out, in]` matrix of a linear map.
    ///
    /// # Errors
    /// As [`WeightSource::tensor`].
    fn matrix(
        &self,
        name: &str,
        (out, input): (usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Matrix> {
        Matrix::arranged(self.tensor(name, &[out, input], dtype, device)?)
    }
}

/// The weights of a model in whatever format it has them.
///
/// # Errors
/// A missing, damaged or unsupported file, by name.
pub(crate) fn open(files: &ModelFiles, config: &DecoderConfig) -> Result<Box<dyn WeightSource>> {
    match files.gguf() {
        Some(gguf) => Ok(Box::new(GgufWeights::new(gguf, config)?)),
        None => Ok(Box::new(Weights::open(files)?)),
    }
}

impl WeightSource for Weights {
    fn has(&self, name: &str) -> bool {
        Self::has(self, name)
    }

    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        Self::tensor(self, name, shape, dtype, device)
    }
}

/// The tensors of a model, by name. Nothing is read until a tensor is asked for.
#[derive(Debug)]
pub struct Weights {
    files: Vec<WeightFile>,
    /// Tensor name to its file's place in `files`.
    place: HashMap<String, usize>,
}

#[derive(Debug)]
struct WeightFile {
    /// For messages.
    path: String,
    content: Content,
    metadata: Metadata,
    data_start: usize,
}

impl Weights {
    /// Finds and checks the weight files of a model: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// A missing, truncated or damaged file, by name.
    pub fn open(files: &ModelFiles) -> Result<Self> {
        if files.has(SINGLE) || !files.has(INDEX) {
            if !files.has(SINGLE) && files.names().iter().any(|name| name.ends_with(".bin")) {
                return Err(Error::unsupported(format!(
                    "model {}: the weights are PyTorch .bin files; convert them to {SINGLE} with \
                     transformers' save_pretrained(safe_serialization=True)",
                    files.name
                )));
            }
            return Self::read(files, vec![SINGLE.to_string()]);
        }
        let index = json(files, INDEX, &files.require(INDEX)?)?;
        let Some(map) = index.get("weight_map").and_then(|map| map.as_object()) else {
            return Err(Error::corrupt(format!(
                "{} has no weight_map; fetch the file again",
                files.describe(INDEX)
            )));
        };
        let mut shards: Vec<String> = map
            .values()
            .filter_map(|shard| Some(shard.as_str()?.to_string()))
            .collect();
        shards.sort();
        shards.dedup();
        if let Some(outside) = shards.iter().find(|name| name.contains(['/', '\\'])) {
            return Err(Error::corrupt(format!(
                "{} names the shard \"{outside}\", which is not a file of the model's directory",
                files.describe(INDEX)
            )));
        }
        Self::read(files, shards)
    }

    /// Opens one safetensors file, such as an adapter's.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(files: &ModelFiles, file: &str) -> Result<Self> {
        Self::read(files, vec![file.to_string()])
    }

    fn read(files: &ModelFiles, names: Vec<String>) -> Result<Self> {
        let mut weights = Self {
            files: Vec::new(),
            place: HashMap::new(),
        };
        for name in names {
            let path = files.describe(&name);
            let content = files.map(&name)?;
            let (header, metadata) =
                SafeTensors::read_metadata(&content).map_err(|e| damaged(&path, &content, e))?;
            for tensor in metadata.tensors().keys() {
                weights.place.insert(tensor.clone(), weights.files.len());
            }
            let data_start = header + size_of::<u64>();
            weights.files.push(WeightFile {
                path,
                content,
                metadata,
                data_start,
            });
        }
        Ok(weights)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.place.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let file = &self.files[*self.place.get(name)?];
        Some(file.metadata.info(name)?.shape.clone())
    }

    /// Reads one tensor, checks its shape, converts it and moves it to the device.
    ///
    /// # Errors
    /// A missing tensor, one of another shape, or one that is not of float32, bfloat16 or
    /// float16, by file and name.
    pub fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let Some(&place) = self.place.get(name) else {
            return Err(self.missing(name));
        };
        let file = &self.files[place];
        let Some(info) = file.metadata.info(name) else {
            return Err(self.missing(name));
        };
        if info.shape != shape {
            return Err(Error::corrupt(format!(
                "{}: tensor {name} has shape {:?}, config.json asks for {shape:?}; config.json and \
                 weights are of different models, fetch both again",
                file.path, info.shape
            )));
        }
        let stored = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            other => {
                return Err(Error::unsupported(format!(
                    "{}: tensor {name} is of type {other:?}; supported are F32, BF16 and F16. Take \
                     the model as it was before it was quantised, or its GGUF",
                    file.path
                )));
            }
        };
        let (start, end) = info.data_offsets;
        let bytes = file
            .content
            .get(file.data_start + start..file.data_start + end)
            .ok_or_else(|| truncated(&file.path))?;
        super::labels::check(&file.path, name, shape, info.dtype, bytes)?;
        // converted where it was read: the device then receives the final bytes only
        let tensor = Tensor::from_raw_buffer(bytes, stored, shape, &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    /// The format that other tools have quantised a missing matrix to, and a tensor that shows it.
    fn quantised(&self, name: &str) -> Option<(&'static str, String)> {
        const MARKS: &[(&str, &str)] = &[
            ("g_idx", "GPTQ"),
            ("qzeros", "AWQ or GPTQ"),
            ("qweight", "AWQ or GPTQ"),
            ("weight_scale", "FP8"),
            ("weight_packed", "compressed-tensors"),
        ];
        let path = name.strip_suffix("weight")?;
        let found = |(end, format): &(&str, &'static str)| {
            let tensor = format!("{path}{end}");
            self.has(&tensor).then_some((*format, tensor))
        };
        MARKS.iter().find_map(found)
    }

    fn missing(&self, name: &str) -> Error {
        if let Some((format, tensor)) = self.quantised(name) {
            return Error::unsupported(format!(
                "{}: {tensor} shows weights quantised in {format}'s way, which are not supported; \
                 take the model as it was before it was quantised, or its GGUF",
                self.files.first().map_or("", |file| file.path.as_str())
            ));
        }
        let paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        let near = self
            .names()
            .into_iter()
            .filter(|other| other.rsplit('.').nth(1) == name.rsplit('.').nth(1))
            .take(3)
            .collect::<Vec<_>>();
        let near = match near.as_slice() {
            [] => self
                .names()
                .into_iter()
                .take(3)
                .collect::<Vec<_>>()
                .join(", "),
            near => near.join(", "),
        };
        Error::corrupt(format!(
            "tensor {name} is missing in {}; there are {} tensors, such as {near}. The file is \
             incomplete or of another architecture, fetch the model again",
            paths.join(", "),
            self.place.len()
        ))
    }
}

fn truncated(path: &str) -> Error {
    Error::corrupt(format!(
        "{path} is truncated: it ends before its last tensor; fetch it again"
    ))
}

fn damaged(path: &str, content: &[u8], source: SafeTensorError) -> Error {
    if content.is_empty() {
        return Error::corrupt(format!("{path} is empty; fetch it again"));
    }
    if content.starts_with(b"version https://git-lfs") {
        return Error::corrupt(format!(
            "{path} is a Git LFS pointer and not the weights; run `git lfs pull` in its directory"
        ));
    }
    match source {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength => {
            truncated(path).with_source(source)
        }
        source => Error::corrupt(format!(
            "{path} is not a safetensors file ({source}); fetch it again"
        ))
        .with_source(source),
    }
}
