//! How weights of a GGUF file are found by the names that other formats give them, and read.
//!
//! On the CPU quantised matrices stay as they are in the file; elsewhere they are unpacked when
//! they are loaded.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Gguf;
use super::header::TensorPlace;
use crate::model::DecoderConfig;
use crate::model::families;
use crate::model::matrix::Matrix;
use crate::model::quant::Quant;
use crate::model::weights::WeightSource;
use crate::{Error, Result};

/// Name of transformers, name of GGUF; both follow the layer's.
const LAYER: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const OUTSIDE: &[(&str, &str)] = &[
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// The weights of a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufWeights {
    file: Gguf,
    /// Rows of queries and keys lie as an interleaved rotation wants them, head by head; the
    /// number of rows of a head.
    interleaved: Option<usize>,
}

impl GgufWeights {
    pub(crate) fn new(file: &Gguf, config: &DecoderConfig) -> Result<Self> {
        let name = file.header.need_text("general.architecture")?;
        let architecture = families::gguf(name);
        let interleaved = architecture.is_some_and(|(_, keys)| keys.interleaved);
        Ok(Self {
            file: file.clone(),
            interleaved: interleaved.then_some(config.head_dim),
        })
    }

    /// The file's name of a tensor.
    fn name(&self, name: &str) -> Option<String> {
        if let Some((_, ours)) = OUTSIDE.iter().find(|(theirs, _)| *theirs == name) {
            return Some((*ours).to_string());
        }
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (module, end) = rest.rsplit_once('.')?;
        let (_, ours) = LAYER.iter().find(|(theirs, _)| *theirs == module)?;
        let path = format!("blk.{layer}.{ours}.{end}");
        // What is behind attention in some families is before the feed-forward in others.
        match module == "post_attention_layernorm" && !self.file.header.tensors.contains_key(&path)
        {
            true => Some(format!("blk.{layer}.ffn_norm.{end}")),
            false => Some(path),
        }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&TensorPlace, Option<usize>)> {
        let path = self.file.path.as_str();
        let found = self.name(name);
        let place = found.as_ref().and_then(|n| self.file.header.tensors.get(n));
        let Some(place) = place else {
            return Err(Error::corrupt(format!(
                "tensor {} ({name}) is missing in {path}; the file is incomplete or of another \
                 architecture, fetch the model again",
                found.as_deref().unwrap_or("without a name")
            )));
        };
        if place.shape != shape {
            return Err(Error::corrupt(format!(
                "{path}: tensor {} has shape {:?}, its keys ask for {shape:?}; fetch the model \
                 again",
                found.unwrap_or_default(),
                place.shape
            )));
        }
        let turned = ["q_proj", "k_proj"].iter().any(|m| name.contains(m));
        Ok((place, self.interleaved.filter(|_| turned)))
    }

    /// Everything of a tensor as f32, rows in the order of transformers.
    fn unpacked(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (place, heads) = self.find(name, shape)?;
        let mut values = vec![0f32; shape.iter().product()];
        let bytes = &self.file.content[place.start..place.start + place.length];
        place.packing.unpack(bytes, &mut values);
        if let (Some(head), Some(rows)) = (heads, shape.first()) {
            let width = values.len() / rows;
            let order = straight(*rows, head);
            let rows = order
                .iter()
                .map(|row| &values[*row as usize * width..][..width]);
            values = rows.flatten().copied().collect();
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// The matrix as it is in the file.
    fn quant(&self, name: &str, (out, input): (usize, usize)) -> Result<Option<Matrix>> {
        let (place, heads) = self.find(name, &[out, input])?;
        if place.packing.is_plain() {
            return Ok(None);
        }
        let order = heads.map(|head| straight(out, head));
        let range = place.start..place.start + place.length;
        let content = Arc::clone(&self.file.content);
        let quant = Quant::new(content, range, place.packing, (out, input), order)?;
        Ok(Some(Matrix::Quant(Arc::new(quant))))
    }
}

/// Which row of the file is a row of transformers: with `d` rows to a head, row `s d / 2 + j` of a
/// head (`s` is 0 or 1) lies at `2 j + s`.
fn straight(rows: usize, d: usize) -> Vec<u32> {
    let row = |i: usize| {
        let (head, within) = (i / d, i % d);
        let (s, j) = (within / (d / 2), within % (d / 2));
        (head * d + 2 * j + s) as u32
    };
    (0..rows).map(row).collect()
}

impl WeightSource for GgufWeights {
    fn has(&self, name: &str) -> bool {
        let name = self.name(name);
        name.is_some_and(|name| self.file.header.tensors.contains_key(&name))
    }

    /// llama.cpp adds it when it converts a model.
    fn norms_have_offset(&self) -> bool {
        true
    }

    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.unpacked(name, shape)?;
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }

    fn table(
        &self,
        name: &str,
        shape: (usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Matrix> {
        if device.is_cpu()
            && let Some(quant) = self.quant(name, shape)?
        {
            return Ok(quant);
        }
        Ok(Matrix::Dense(self.tensor(
            name,
            &[shape.0, shape.1],
            dtype,
            device,
        )?))
    }

    fn matrix(
        &self,
        name: &str,
        shape: (usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Matrix> {
        if device.is_cpu()
            && let Some(quant) = self.quant(name, shape)?
        {
            return Ok(quant);
        }
        Matrix::arranged(self.tensor(name, &[shape.0, shape.1], dtype, device)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_put_straight() {
        // Two heads of four rows; transformers' row i is written to the place llama.cpp gives it.
        assert_eq!(straight(8, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
