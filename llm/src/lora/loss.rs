//! Cross-entropy of the supervised tokens, chunk by chunk: logits of all rows never exist.

use candle_core::{DType, Tensor};

use crate::Result;
use crate::kernels::softmax_cross_entropy;
use crate::model::Decoder;

/// Rows of logits that exist at once, with a vocabulary of up to 32,768 tokens: 64 MB in f32.
const CHUNK_ROWS: usize = 512;
/// Logits that exist at once with a larger one, as far as that leaves [`LEAST_ROWS`].
const CHUNK_LOGITS: usize = 512 * 32_768;
/// A matrix product of fewer rows is not worth its reading.
const LEAST_ROWS: usize = 64;

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
    let c = &decoder.config;
    let chunk = (CHUNK_LOGITS / c.vocab_size).clamp(LEAST_ROWS, CHUNK_ROWS);
    let mut d_hidden = hidden.zeros_like()?;
    let mut loss = 0.0;
    for (rows, tokens) in targets.rows.chunks(chunk).zip(targets.tokens.chunks(chunk)) {
        let index = Tensor::new(rows, hidden.device())?;
        let picked = hidden.index_select(&index, 0)?; // [n, hidden]
        let logits = decoder.logits(&picked)?.to_dtype(DType::F32)?; // [n, vocab]
        let wanted = Tensor::new(tokens, hidden.device())?;
        // The slope of bent logits, `1 - (logits / cap)²`: they are overwritten below.
        let slope = match c.logits_softcap {
            Some(cap) => Some((1.0 - (&logits / cap)?.sqr()?)?),
            None => None,
        };
        let (nats, mut d_logits) = softmax_cross_entropy(logits, &wanted, weight)?;
        loss += nats;
        if let Some(slope) = slope {
            d_logits = (d_logits * slope)?;
        }
        if c.logits_scale != 1.0 {
            d_logits = (d_logits * c.logits_scale)?;
        }
        let d_rows = decoder
            .head
            .forward_t(&d_logits.to_dtype(hidden.dtype())?)?;
        d_hidden = d_hidden.index_add(&index, &d_rows, 0)?;
    }
    Ok((loss, d_hidden))
}
