//! Cross-entropy of the supervised tokens, chunk by chunk: logits of all rows never exist.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::kernels::softmax_cross_entropy;
use crate::model::Decoder;

/// Rows of logits that exist at once; with a vocabulary of 32,000 that is 64 MB in f32.
const CHUNK_ROWS: usize = 512;

/// Which rows predict which token: the row before each supervised token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Targets {
    pub(super) rows: Vec<u32>,
    pub(super) tokens: Vec<u32>,
}

/// The summed loss in nats, and its gradient by `hidden` `[t, hidden]` times `weight`.
pub(super) fn cross_entropy(
    decoder: &Decoder,
    hidden: &Tensor,
    targets: &Targets,
    weight: f64,
) -> Result<(f64, Tensor)> {
    let mut d_hidden = hidden.zeros_like()?;
    let mut loss = 0.0;
    for (rows, tokens) in targets
        .rows
        .chunks(CHUNK_ROWS)
        .zip(targets.tokens.chunks(CHUNK_ROWS))
    {
        let index = Tensor::new(rows, hidden.device())?;
        let picked = hidden.index_select(&index, 0)?; // [n, hidden]
        let logits = picked.matmul(&decoder.head.t()?)?.to_dtype(DType::F32)?; // [n, vocab]
        let wanted = Tensor::new(tokens, hidden.device())?;
        let (nats, d_logits) = softmax_cross_entropy(logits, &wanted, weight)?;
        loss += nats;
        let d_rows = d_logits.to_dtype(hidden.dtype())?.matmul(&decoder.head)?;
        d_hidden = d_hidden.index_add(&index, &d_rows, 0)?;
    }
    Ok((loss, d_hidden))
}
