//! Where keys and values of prefilled tokens are kept: blocks that are written in place.

use candle_core::{DType, Device, Tensor};

use super::config::DecoderConfig;
use crate::Result;
use crate::kernels::Span;

/// Room for the keys and values of consecutive tokens, in every layer. Cloning shares the room.
#[derive(Debug, Clone)]
pub struct KvBlock {
    /// Per layer keys and values, `[capacity, kv_heads, head_dim]` each.
    layers: Vec<(Tensor, Tensor)>,
    capacity: usize,
}

impl KvBlock {
    /// An empty block for `capacity` tokens.
    ///
    /// # Errors
    /// A device without enough memory.
    pub fn new(
        config: &DecoderConfig,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (capacity, config.num_key_value_heads, config.head_dim);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            layers.push((
                Tensor::zeros(shape, dtype, device)?,
                Tensor::zeros(shape, dtype, device)?,
            ));
        }
        Ok(Self { layers, capacity })
    }

    /// How many tokens fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that the keys and values of one token take.
    pub fn bytes_per_token(config: &DecoderConfig, dtype: DType) -> usize {
        2 * config.num_hidden_layers
            * config.num_key_value_heads
            * config.head_dim
            * dtype.size_in_bytes()
    }

    /// Writes keys and values `[n, kv_heads, head_dim]` of a layer at token `start`.
    pub(crate) fn write(
        &self,
        layer: usize,
        start: usize,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<()> {
        let (k, v) = &self.layers[layer];
        k.slice_set(keys, 0, start)?;
        v.slice_set(values, 0, start)?;
        Ok(())
    }

    /// The first `len` tokens of a layer.
    pub(crate) fn span(&self, layer: usize, len: usize) -> Result<Span> {
        let (k, v) = &self.layers[layer];
        Ok(Span {
            keys: k.narrow(0, 0, len)?,
            values: v.narrow(0, 0, len)?,
        })
    }
}
