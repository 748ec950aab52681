//! Sums without new memory: residual streams, low-rank parts, gradients of shared inputs.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::Element;
use crate::Result;

/// Elements one task handles.
const BLOCK: usize = 16384;

/// `sum + other`, element by element, written into the memory of `sum`: it must be the result of
/// an operation that nobody else holds. Same shape and dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub(crate) fn add_into(sum: Tensor, other: &Tensor) -> Result<Tensor> {
    if !sum.device().is_cpu() || !sum.is_contiguous() {
        return Ok((sum + other)?);
    }
    sum.inplace_op2(&other.contiguous()?, &Add)?;
    Ok(sum)
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add_into"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        sum_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> candle_core::Result<()> {
        if sum_layout.shape() != other_layout.shape() {
            bail!(
                "sum of shapes {:?} and {:?}",
                sum_layout.shape(),
                other_layout.shape()
            );
        }
        match (sum, other) {
            (CpuStorage::F32(a), CpuStorage::F32(b)) => add(a, sum_layout, b, other_layout),
            (CpuStorage::BF16(a), CpuStorage::BF16(b)) => {
                add::<bf16>(a, sum_layout, b, other_layout)
            }
            (CpuStorage::F16(a), CpuStorage::F16(b)) => add::<f16>(a, sum_layout, b, other_layout),
            _ => bail!("sums need two tensors of float32, bfloat16 or float16"),
        }
    }
}

fn add<T: Element>(
    sum: &mut [T],
    sum_layout: &Layout,
    other: &[T],
    other_layout: &Layout,
) -> candle_core::Result<()> {
    let ranges = (
        sum_layout.contiguous_offsets(),
        other_layout.contiguous_offsets(),
    );
    let (Some((a, a_end)), Some((b, b_end))) = ranges else {
        bail!("kernel input is not contiguous");
    };
    sum[a..a_end]
        .par_chunks_mut(BLOCK)
        .zip(other[b..b_end].par_chunks(BLOCK))
        .for_each(|(sum, other)| {
            for (a, b) in sum.iter_mut().zip(other) {
                *a = T::narrow(a.widen() + b.widen());
            }
        });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn sums_are_those_of_tensors() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let random = || {
                let x = Tensor::rand(-1f32, 1.0, (70, 501), &Device::Cpu).unwrap();
                x.to_dtype(dtype).unwrap()
            };
            let (a, b) = (random(), random());
            let want = (&a + &b).unwrap().to_dtype(DType::F32).unwrap();
            let got = add_into(a.copy().unwrap(), &b).unwrap();
            let got = got.to_dtype(DType::F32).unwrap();
            assert_eq!(
                got.to_vec2::<f32>().unwrap(),
                want.to_vec2::<f32>().unwrap()
            );
        }
        let (a, b) = (Tensor::zeros((2, 3), DType::F32, &Device::Cpu), Device::Cpu);
        assert!(add_into(a.unwrap(), &Tensor::zeros(6, DType::F32, &b).unwrap()).is_err());
    }
}
