//! Are 16-bit weights of the type that their file says?
//!
//! The two 16-bit types differ in which bits are the exponent. A file that was labelled wrongly has
//! the right size, every number in it is valid, and the model writes nonsense. Matrices of a trained
//! model are spread around zero; read as the other type they are not, and that is seen.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use crate::{Error, Result};

/// Numbers that are looked at, evenly over the matrix.
const SAMPLES: usize = 4096;
/// Fewer say too little.
const FEWEST: usize = 512;

/// Refuses a matrix whose numbers make sense as the other 16-bit type alone.
///
/// # Errors
/// `Corrupt` with the file, the tensor and both types.
pub(super) fn check(
    path: &str,
    name: &str,
    shape: &[usize],
    dtype: Dtype,
    bytes: &[u8],
) -> Result<()> {
    if shape.len() != 2 {
        return Ok(()); // norms and biases have distributions of their own
    }
    type Read = fn(u16) -> f32;
    let (own, other, instead): (Read, Read, _) = match dtype {
        Dtype::F16 => (from_f16, from_bf16, Dtype::BF16),
        Dtype::BF16 => (from_bf16, from_f16, Dtype::F16),
        _ => return Ok(()),
    };
    let count = bytes.len() / 2;
    let step = (count / SAMPLES).max(1);
    let numbers: Vec<u16> = bytes
        .chunks_exact(2)
        .step_by(step)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .filter(|bits| bits & 0x7fff != 0)
        .collect();
    if numbers.len() < FEWEST || is_plausible(&numbers, own) || !is_plausible(&numbers, other) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{path}: tensor {name} is labelled {dtype:?} and holds numbers of the type {instead:?}; \
         fetch the file again, or save the model again with its right type"
    )))
}

fn from_f16(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

fn from_bf16(bits: u16) -> f32 {
    bf16::from_bits(bits).to_f32()
}

/// Both signs, and of the numbers some but not many are far smaller than the middle one: 5 % are
/// below a tenth of it in a normal distribution and in an even one alike.
fn is_plausible(bits: &[u16], read: fn(u16) -> f32) -> bool {
    let numbers: Vec<f32> = bits.iter().map(|bits| read(*bits)).collect();
    if numbers.iter().any(|number| !number.is_finite()) {
        return false;
    }
    let share = |count: usize| count as f64 / numbers.len() as f64;
    let positive = share(numbers.iter().filter(|number| **number > 0.0).count());
    let mut sizes: Vec<f32> = numbers.iter().map(|number| number.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let middle = sizes[sizes.len() / 2];
    let small = share(sizes.partition_point(|size| *size < middle / 10.0));
    (0.2..=0.8).contains(&positive) && (0.01..=0.3).contains(&small)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of a distribution, the same each time.
    fn numbers(count: usize, shape: fn(f64, f64) -> f64) -> Vec<f32> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..count).map(|_| shape(next(), next()) as f32).collect()
    }

    fn normal(a: f64, b: f64) -> f64 {
        (-2.0 * a.max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    fn even(a: f64, _: f64) -> f64 {
        2.0 * a - 1.0
    }

    fn heavy(a: f64, b: f64) -> f64 {
        normal(a, b) * (1.0 + 20.0 * (b * 977.0).fract().powi(8))
    }

    fn check_as(bytes: &[u8], dtype: Dtype) -> Result<()> {
        check("w.safetensors", "q", &[64, bytes.len() / 128], dtype, bytes)
    }

    #[test]
    fn wrong_labels_are_seen_and_right_ones_are_not() {
        for shape in [normal, even, heavy] {
            for scale in [0.005f32, 0.02, 0.1, 0.35, 1.0] {
                let numbers: Vec<f32> = numbers(8192, shape)
                    .into_iter()
                    .map(|n| n * scale)
                    .collect();
                let half: Vec<u8> = numbers
                    .iter()
                    .flat_map(|n| f16::from_f32(*n).to_le_bytes())
                    .collect();
                let brain: Vec<u8> = numbers
                    .iter()
                    .flat_map(|n| bf16::from_f32(*n).to_le_bytes())
                    .collect();
                check_as(&half, Dtype::F16).unwrap();
                check_as(&brain, Dtype::BF16).unwrap();
                let error = check_as(&brain, Dtype::F16).unwrap_err();
                assert!(error.message.contains("labelled F16"), "{scale}: {error}");
                let error = check_as(&half, Dtype::BF16).unwrap_err();
                assert!(error.message.contains("the type F16"), "{scale}: {error}");
            }
        }
    }

    #[test]
    fn matrices_that_were_never_trained_are_left_alone() {
        let bytes = |value: f32, other: f32| -> Vec<u8> {
            let numbers = (0..8192).map(|i| if i % 7 == 0 { other } else { value });
            numbers
                .flat_map(|n| f16::from_f32(n).to_le_bytes())
                .collect()
        };
        for (value, other) in [
            (0.0, 1.0),
            (1.0, -1.0),
            (0.5, 2.0),
            (0.0, 0.0),
            (1e-4, -3.0),
        ] {
            for dtype in [Dtype::F16, Dtype::BF16] {
                check_as(&bytes(value, other), dtype).unwrap();
            }
        }
    }
}
