//! What stands before the weights of a GGUF file: metadata by key, and name, type and place of
//! every tensor. Counts and lengths in the file are bounded by its size before memory is reserved.

use std::collections::BTreeMap;

use super::blocks::{Packing, type_name};
use crate::{Error, ErrorKind, Result};

/// Where tensors begin unless the file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Arrays in arrays are read to this depth.
const DEEPEST: usize = 4;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meta {
    /// Any whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<Meta>),
}

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorPlace {
    /// As other formats write it: rows first.
    pub(crate) shape: Vec<usize>,
    pub(crate) packing: Packing,
    /// First byte in the file.
    pub(crate) start: usize,
    /// Bytes it takes.
    pub(crate) length: usize,
}

/// Everything but the weights.
#[derive(Debug)]
pub(crate) struct Header {
    path: String,
    meta: BTreeMap<String, Meta>,
    pub(crate) tensors: BTreeMap<String, TensorPlace>,
}

impl Header {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { path, bytes, at: 0 };
        if reader.take(4)? != super::MAGIC {
            return Err(Error::corrupt(format!(
                "{path} is not a GGUF file; fetch it again"
            )));
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(Error::unsupported(format!(
                "{path} is of GGUF version {version}; supported are 2 and 3 (little-endian). \
                 Convert the model again with a recent llama.cpp"
            )));
        }
        let (tensors, keys) = (reader.count(24)?, reader.count(13)?);
        let mut meta = BTreeMap::new();
        for _ in 0..keys {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0)?;
            meta.insert(key, value);
        }
        let mut header = Self {
            path: path.to_string(),
            meta,
            tensors: BTreeMap::new(),
        };
        if header.optional_size("split.count")?.unwrap_or(1) > 1 {
            return Err(Error::unsupported(format!(
                "{path} is a part of a model that was split into several files; join them with \
                 llama.cpp's `llama-gguf-split --merge` and name the whole"
            )));
        }
        let mut places = vec![];
        for _ in 0..tensors {
            places.push(reader.tensor()?);
        }
        let alignment = match header.optional_size("general.alignment")? {
            Some(alignment) => alignment as u64,
            None => DEFAULT_ALIGNMENT,
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(reader.damaged(&format!("an alignment of {alignment} bytes")));
        }
        let start = (reader.at as u64).next_multiple_of(alignment);
        for (name, mut place, offset) in places {
            let first = start
                .checked_add(offset)
                .and_then(|n| usize::try_from(n).ok());
            let end = first.and_then(|first| first.checked_add(place.length));
            let (Some(first), Some(_)) = (first, end.filter(|end| *end <= bytes.len())) else {
                return Err(Error::corrupt(format!(
                    "{path} is truncated: it ends before tensor {name}; fetch it again"
                )));
            };
            place.start = first;
            if header.tensors.insert(name.clone(), place).is_some() {
                return Err(reader.damaged(&format!("tensor {name} twice")));
            }
        }
        Ok(header)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Meta> {
        self.meta.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    pub(crate) fn need_text(&self, key: &str) -> Result<&str> {
        self.text(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Int(n)) => usize::try_from(*n)
                .map(Some)
                .map_err(|_| self.wrong(key, "a size")),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Float(n)) => Ok(Some(*n)),
            Some(Meta::Int(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(key, "a number")),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(items) = self.list(key)? else {
            return Ok(None);
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Meta::Text(text) => texts.push(text.as_str()),
                _ => return Err(self.wrong(key, "a list of texts")),
            }
        }
        Ok(Some(texts))
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(items) = self.list(key)? else {
            return Ok(None);
        };
        let mut numbers = Vec::with_capacity(items.len());
        for item in items {
            numbers.push(match item {
                Meta::Int(n) => *n as f64,
                Meta::Float(n) => *n,
                _ => return Err(self.wrong(key, "a list of numbers")),
            });
        }
        Ok(Some(numbers))
    }

    fn list(&self, key: &str) -> Result<Option<&[Meta]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Meta::List(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        Error::corrupt(format!(
            "{}: {key} is not {wanted}; fetch the file again",
            self.path
        ))
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::corrupt(format!(
            "{} does not say {key}; fetch the file again, or convert the model with a recent \
             llama.cpp",
            self.path
        ))
    }
}

struct Reader<'a> {
    path: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            Error::corrupt(format!(
                "{} is truncated: it ends within its header; fetch it again",
                self.path
            ))
        })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things that take `least` bytes each, at least.
    fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.u64()?;
        let left = (self.bytes.len() - self.at) / least;
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(self.damaged(&format!("{count} entries in the rest of the file"))),
        }
    }

    fn text(&mut self) -> Result<String> {
        let length = self.count(1)?;
        let bytes = self.take(length)?;
        // Some tokens are no whole characters; llama.cpp writes them as they are.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Meta> {
        Ok(match kind {
            0 => Meta::Int(i64::from(self.array::<1>()?[0])),
            1 => Meta::Int(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Meta::Int(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Meta::Int(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Meta::Int(i64::from(self.u32()?)),
            5 => Meta::Int(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Meta::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Meta::Bool(self.array::<1>()?[0] != 0),
            8 => Meta::Text(self.text()?),
            9 if depth < DEEPEST => {
                let kind = self.u32()?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    9 => 12,
                    _ => 8,
                };
                let count = self.count(least)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.value(kind, depth + 1)?);
                }
                Meta::List(items)
            }
            10 => {
                let value = self.u64()?;
                Meta::Int(i64::try_from(value).unwrap_or(i64::MAX))
            }
            11 => Meta::Int(i64::from_le_bytes(self.array()?)),
            12 => Meta::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(self.damaged(&format!("a value of type {other}"))),
        })
    }

    /// Name and place of a tensor, and its offset behind the header.
    fn tensor(&mut self) -> Result<(String, TensorPlace, u64)> {
        let name = self.text()?;
        let dims = self.u32()? as usize;
        if dims == 0 || dims > 4 {
            return Err(self.damaged(&format!("tensor {name} of {dims} dimensions")));
        }
        let mut shape = vec![];
        for _ in 0..dims {
            shape.push(self.u64()?);
        }
        let (kind, offset) = (self.u32()?, self.u64()?);
        let Some(packing) = Packing::of(kind) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: tensor {name} is of type {}; supported are {}. Take the file of this \
                     model in one of these types (such as Q4_K_M or Q8_0), or make it with \
                     llama.cpp's `llama-quantize --allow-requantize`",
                    self.path,
                    type_name(kind),
                    Packing::names()
                ),
            ));
        };
        // Numbers of a row lie together; the file names the row's length first.
        let row = shape[0];
        let numbers = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
        let per_block = packing.numbers() as u64;
        let length = numbers.map(|n| n / per_block);
        let length = length.and_then(|n| n.checked_mul(packing.bytes() as u64));
        let length = length.and_then(|n| usize::try_from(n).ok());
        let (Some(length), 0) = (length, row % per_block) else {
            return Err(self.damaged(&format!("tensor {name} of shape {shape:?}")));
        };
        let shape = shape.iter().rev().map(|n| *n as usize).collect();
        let place = TensorPlace {
            shape,
            packing,
            start: 0,
            length,
        };
        Ok((name, place, offset))
    }

    fn damaged(&self, what: &str) -> Error {
        Error::corrupt(format!(
            "{} is damaged: its header names {what}; fetch it again",
            self.path
        ))
    }
}
