//! How the feed-forward is gated: `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::{Element, slice};
use super::vector::{Instructions, Portable, Vector};
use crate::Result;

/// Elements one task handles.
const BLOCK: usize = 8192;

/// `gate / (1 + exp(-gate)) * up`, element by element; both `[t, intermediate]`, same dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        return Ok(gate
            .contiguous()?
            .apply_op2_no_bwd(&up.contiguous()?, &SwiGlu)?);
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
            bail!(
                "swiglu of shapes {:?} and {:?}",
                gate_layout.shape(),
                up_layout.shape()
            );
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
    let instructions = Instructions::detect();
    let blocks = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK));
    out.par_chunks_mut(BLOCK)
        .zip(blocks)
        .for_each(|(out, (gate, up))| match instructions {
            // SAFETY: the instructions were found on this machine.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Instructions::Avx512 => unsafe { block_avx512(gate, up, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Instructions::Avx2 => unsafe { block_avx2(gate, up, out) },
            Instructions::Portable => block::<T, Portable>(gate, up, out),
        });
    T::to_cpu_storage_owned(out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn block_avx512<T: Element>(gate: &[T], up: &[T], out: &mut [T]) {
    block::<T, super::vector::Avx512>(gate, up, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn block_avx2<T: Element>(gate: &[T], up: &[T], out: &mut [T]) {
    block::<T, super::vector::Avx2>(gate, up, out);
}

#[inline(always)]
fn block<T: Element, V: Vector>(gate: &[T], up: &[T], out: &mut [T]) {
    let l = V::LANES;
    let mut at = 0;
    if let (Some(g), Some(u), Some(out)) = (T::as_f32(gate), T::as_f32(up), T::as_f32_mut(out)) {
        while at + l <= out.len() {
            gated(V::load(&g[at..]), V::load(&u[at..])).store(&mut out[at..]);
            at += l;
        }
    }
    let (mut g, mut u) = ([0f32; 16], [0f32; 16]);
    while at < out.len() {
        let n = l.min(out.len() - at);
        for i in 0..n {
            (g[i], u[i]) = (gate[at + i].widen(), up[at + i].widen());
        }
        gated(V::load(&g), V::load(&u)).store(&mut g);
        for i in 0..n {
            out[at + i] = T::narrow(g[i]);
        }
        at += n;
    }
}

#[inline(always)]
fn gated<V: Vector>(gate: V, up: V) -> V {
    let below = gate.mul(V::splat(-1.0)).exp().add(V::splat(1.0));
    gate.mul(up).div(below)
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
