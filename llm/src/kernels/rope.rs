//! How positions enter: each head's halves are rotated against each other (Su et al. 2021,
//! arXiv 2104.09864; the half-rotation layout of transformers' `rotate_half`).

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::{Element, slice};
use crate::Result;

/// Rotates `x` `[t, heads, d]` by the angles of its rows: `cos`, `sin` `[t, r / 2]`, f32. With the
/// first `r` numbers of a head split in the middle into `(a, b)` the result is
/// `(a cos - b sin, b cos + a sin)`; those behind them stay. The backward pass is the same
/// function with `-sin`.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        let (cos, sin) = (cos.contiguous()?, sin.contiguous()?);
        return Ok(x
            .contiguous()?
            .apply_op3_no_bwd(&cos, &sin, &RotateHalves)?);
    }
    let half = cos.dim(D::Minus1)?;
    let rest = x.dim(D::Minus1)? - 2 * half;
    let wide = x.to_dtype(DType::F32)?;
    let (a, b) = (
        wide.narrow(D::Minus1, 0, half)?,
        wide.narrow(D::Minus1, half, half)?,
    );
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?); // [t, 1, d / 2]
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let rest = wide.narrow(D::Minus1, 2 * half, rest)?;
    Ok(Tensor::cat(&[first, second, rest], D::Minus1)?.to_dtype(x.dtype())?)
}

struct RotateHalves;

impl CustomOp3 for RotateHalves {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (t, heads, d) = x_layout.shape().dims3()?;
        let (rows, half) = cos_layout.shape().dims2()?;
        if rows != t || 2 * half > d || sin_layout.shape().dims2()? != (rows, half) {
            bail!(
                "rope of {t} rows of width {d} by angles {:?}",
                cos_layout.shape()
            );
        }
        let (cos, sin) = (slice(cos, cos_layout)?, slice(sin, sin_layout)?);
        let storage = match x {
            CpuStorage::F32(_) => self::rows::<f32>(slice(x, x_layout)?, cos, sin, heads, d, half),
            CpuStorage::BF16(_) => {
                self::rows::<bf16>(slice(x, x_layout)?, cos, sin, heads, d, half)
            }
            CpuStorage::F16(_) => self::rows::<f16>(slice(x, x_layout)?, cos, sin, heads, d, half),
            _ => bail!("rope needs float32, bfloat16 or float16"),
        };
        Ok((storage, x_layout.shape().clone()))
    }
}

fn rows<T: Element>(
    x: &[T],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    d: usize,
    half: usize,
) -> CpuStorage {
    let mut out = vec![T::narrow(0.0); x.len()];
    let angles = cos.par_chunks(half).zip(sin.par_chunks(half));
    let rows = out.par_chunks_mut(heads * d).zip(x.par_chunks(heads * d));
    rows.zip(angles)
        .with_min_len(8)
        .for_each(|((out, x), (cos, sin))| {
            for (out, x) in out.chunks_mut(d).zip(x.chunks(d)) {
                let (a, b) = x.split_at(half);
                let (first, second) = out.split_at_mut(half);
                second[half..].copy_from_slice(&b[half..]);
                for i in 0..half {
                    let (a, b) = (a[i].widen(), b[i].widen());
                    first[i] = T::narrow(a * cos[i] - b * sin[i]);
                    second[i] = T::narrow(b * cos[i] + a * sin[i]);
                }
            }
        });
    T::to_cpu_storage_owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rotates_halves_and_back() {
        let x = Tensor::rand(-1f32, 1.0, (3, 2, 8), &Device::Cpu).unwrap();
        let angle = Tensor::rand(0f32, 3.0, (3, 4), &Device::Cpu).unwrap();
        let (cos, sin) = (angle.cos().unwrap(), angle.sin().unwrap());
        let turned = rope(&x, &cos, &sin).unwrap();
        let back = rope(&turned, &cos, &sin.neg().unwrap()).unwrap();
        let gap = (&back - &x).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gap.to_scalar::<f32>().unwrap() < 1e-6);
        // angles for half of the width leave the other half
        let narrow = |t: &Tensor| t.narrow(1, 0, 2).unwrap();
        let partly = rope(&x, &narrow(&cos), &narrow(&sin)).unwrap();
        let rest = |t: &Tensor| t.narrow(2, 4, 4).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(rest(&partly), rest(&x));
        let front = |t: &Tensor| t.narrow(2, 0, 4).unwrap();
        let alone = rope(&front(&x), &narrow(&cos), &narrow(&sin)).unwrap();
        let front = front(&partly).to_vec3::<f32>().unwrap();
        assert_eq!(front, alone.to_vec3::<f32>().unwrap());
        // the first pair of a head is elements 0 and d / 2
        let (x, turned) = (
            x.to_vec3::<f32>().unwrap(),
            turned.to_vec3::<f32>().unwrap(),
        );
        let angle = angle.to_vec2::<f32>().unwrap()[1][0];
        let wanted = x[1][1][0] * angle.cos() - x[1][1][4] * angle.sin();
        assert!((turned[1][1][0] - wanted).abs() < 1e-6);
    }
}
