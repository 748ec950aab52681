//! How the feed-forward is gated: `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::{Element, exp, has_avx2, slice};
use crate::Result;

/// Elements one task handles.
const BLOCK: usize = 8192;

/// `gate / (1 + exp(-gate)) * up`, element by element; both `[t, intermediate]`, same dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        return Ok(gate.contiguous()?.apply_op2_no_bwd(&up.contiguous()?, &SwiGlu)?);
    }
    Ok((gate.silu()? * up)?)
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        if gate_layout.shape() != up_layout.shape() {
            bail!("swiglu of shapes {:?} and {:?}", gate_layout.shape(), up_layout.shape());
        }
        let storage = match gate {
            CpuStorage::F32(_) => all::<f32>(slice(gate, gate_layout)?, slice(up, up_layout)?),
            CpuStorage::BF16(_) => all::<bf16>(slice(gate, gate_layout)?, slice(up, up_layout)?),
            CpuStorage::F16(_) => all::<f16>(slice(gate, gate_layout)?, slice(up, up_layout)?),
            _ => bail!("swiglu needs float32, bfloat16 or float16"),
        };
        Ok((storage, gate_layout.shape().clone()))
    }
}

fn all<T: Element>(gate: &[T], up: &[T]) -> CpuStorage {
    let mut out = vec![T::narrow(0.0); gate.len()];
    let avx2 = has_avx2();
    let blocks = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK));
    out.par_chunks_mut(BLOCK).zip(blocks).for_each(|(out, (gate, up))| {
        #[cfg(target_arch = "x86_64")]
        if avx2 {
            // SAFETY: the instructions were found on this machine.
            #[allow(unsafe_code)]
            unsafe {
                block_avx2(gate, up, out);
            }
            return;
        }
        block::<T, false>(gate, up, out);
    });
    let _ = avx2; // unused on other machines
    T::to_cpu_storage_owned(out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn block_avx2<T: Element>(gate: &[T], up: &[T], out: &mut [T]) {
    block::<T, true>(gate, up, out);
}

#[inline(always)]
fn block<T: Element, const FMA: bool>(gate: &[T], up: &[T], out: &mut [T]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        let g = gate.widen();
        *out = T::narrow(g / (1.0 + exp::<FMA>(-g)) * up.widen());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn matches_the_formula() {
        let gate = Tensor::rand(-9f32, 9.0, (3, 3001), &Device::Cpu).unwrap();
        let up = Tensor::rand(-2f32, 2.0, (3, 3001), &Device::Cpu).unwrap();
        let wanted = (gate.silu().unwrap() * &up).unwrap();
        for (dtype, limit) in [(DType::F32, 1e-5), (DType::BF16, 0.2), (DType::F16, 0.02)] {
            let found = swiglu(&gate.to_dtype(dtype).unwrap(), &up.to_dtype(dtype).unwrap());
            let found = found.unwrap().to_dtype(DType::F32).unwrap();
            let gap = (found - &wanted).unwrap().abs().unwrap().max_all().unwrap();
            assert!(gap.to_scalar::<f32>().unwrap() < limit, "{dtype:?} {gap}");
        }
    }
}
