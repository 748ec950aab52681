//! Which sizes of a config.json no model has. They are refused before anything is allocated for them.

use crate::{Error, Result};

/// Most weights of a model: several times the largest published one.
const MOST_WEIGHTS: u128 = 1 << 43;

/// What decides how much is allocated for a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) head_dim: usize,
    pub(super) max_position_embeddings: usize,
}

/// Refuses absurd sizes, and constants that no arithmetic survives.
///
/// # Errors
/// `Corrupt` that names the key, its value and the bound.
pub(super) fn check(name: &str, sizes: Sizes, rms_norm_eps: f64, rope_theta: f64) -> Result<()> {
    let impossible = |what: String| {
        Err(Error::corrupt(format!(
            "model {name}: config.json is impossible: {what}; fetch the file again"
        )))
    };
    for (key, size, most) in [
        ("vocab_size", sizes.vocab_size, 1 << 22),
        ("hidden_size", sizes.hidden_size, 1 << 17),
        ("intermediate_size", sizes.intermediate_size, 1 << 20),
        ("num_hidden_layers", sizes.num_hidden_layers, 1 << 10),
        ("num_attention_heads", sizes.num_attention_heads, 1 << 12),
        ("head_dim", sizes.head_dim, 1 << 12),
        (
            "max_position_embeddings",
            sizes.max_position_embeddings,
            1 << 23,
        ),
    ] {
        if size > most {
            return impossible(format!("{key} is {size}, more than {most}"));
        }
    }
    let [vocab, hidden, inner, layers, heads, head] = [
        sizes.vocab_size,
        sizes.hidden_size,
        sizes.intermediate_size,
        sizes.num_hidden_layers,
        sizes.num_attention_heads,
        sizes.head_dim,
    ]
    .map(|size| size as u128);
    let weights = hidden * (vocab + layers * (3 * inner + 2 * heads * head));
    if weights > MOST_WEIGHTS {
        return impossible(format!("its sizes give {weights} weights"));
    }
    if !(0.0..=1.0).contains(&rms_norm_eps) {
        return impossible(format!("rms_norm_eps is {rms_norm_eps}"));
    }
    match rope_theta.is_finite() && rope_theta > 0.0 {
        true => Ok(()),
        false => impossible(format!("rope_theta is {rope_theta}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest published sizes, each of another model.
    const LARGE: Sizes = Sizes {
        vocab_size: 262_208,
        hidden_size: 16_384,
        intermediate_size: 53_248,
        num_hidden_layers: 126,
        num_attention_heads: 128,
        head_dim: 256,
        max_position_embeddings: 4_194_304,
    };

    fn error(change: impl Fn(&mut Sizes)) -> String {
        let mut sizes = LARGE;
        change(&mut sizes);
        check("m", sizes, 1e-5, 1e4).unwrap_err().message
    }

    #[test]
    fn absurd_sizes_are_refused_by_name() {
        check("m", LARGE, 1e-5, 1e4).unwrap();
        for large in [1 << 31, 1 << 53, usize::MAX] {
            assert!(error(|s| s.vocab_size = large).contains("vocab_size is"));
            assert!(error(|s| s.hidden_size = large).contains("hidden_size is"));
            assert!(error(|s| s.intermediate_size = large).contains("intermediate_size is"));
            assert!(error(|s| s.num_hidden_layers = large).contains("num_hidden_layers is"));
            assert!(error(|s| s.num_attention_heads = large).contains("num_attention_heads is"));
            assert!(error(|s| s.head_dim = large).contains("head_dim is"));
            assert!(
                error(|s| s.max_position_embeddings = large).contains("max_position_embeddings is")
            );
        }
        let all = |s: &mut Sizes| (s.hidden_size, s.intermediate_size) = (1 << 17, 1 << 20);
        assert!(error(all).contains("weights"));
        for eps in [-1e-5, 1e30, f64::NAN] {
            assert!(
                check("m", LARGE, eps, 1e4)
                    .unwrap_err()
                    .message
                    .contains("rms_norm_eps")
            );
        }
        for theta in [0.0, -1e4, f64::INFINITY, f64::NAN] {
            assert!(
                check("m", LARGE, 1e-5, theta)
                    .unwrap_err()
                    .message
                    .contains("rope_theta")
            );
        }
    }
}
