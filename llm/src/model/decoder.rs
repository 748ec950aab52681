//! What the network computes: packed rows of many sequences in, hidden rows and logits out.

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use super::linear::Linear;
use super::rope_table::RopeTable;
use super::source::ModelSource;
use crate::{Error, Result};

/// A Llama-family decoder with all its weights on one device.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// The shape of the network.
    pub config: DecoderConfig,
    /// `[vocab, hidden]`.
    pub embed: Tensor,
    /// First to last.
    pub layers: Vec<Layer>,
    /// Weight of the last norm, `[hidden]`.
    pub norm: Tensor,
    /// `[vocab, hidden]`; the embedding itself when tied.
    pub head: Tensor,
    /// Angles of all positions of the context.
    pub rope: RopeTable,
    /// Where the weights are.
    pub device: Device,
    /// The weights' dtype, and that of the hidden rows.
    pub dtype: DType,
}

/// One layer: attention and gated feed-forward, each behind a norm and a residual.
#[derive(Debug, Clone)]
pub struct Layer {
    /// `[hidden]`, before attention.
    pub input_norm: Tensor,
    /// `[heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// `[hidden, heads * head_dim]`.
    pub o: Linear,
    /// `[hidden]`, before the feed-forward.
    pub post_norm: Tensor,
    /// `[intermediate, hidden]`.
    pub gate: Linear,
    /// `[intermediate, hidden]`.
    pub up: Linear,
    /// `[hidden, intermediate]`.
    pub down: Linear,
}

impl Decoder {
    /// Reads a model.
    ///
    /// # Errors
    /// A missing, damaged or unsupported file, naming it.
    pub fn load(_source: &ModelSource, _device: &Device, _dtype: DType) -> Result<Self> {
        Err(Error::unsupported("loading is not there yet"))
    }
}
