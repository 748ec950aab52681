//! How the feed-forward is gated: `silu(gate) * up` or `gelu(gate) * up` (Shazeer 2020, arXiv
//! 2002.05202).

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::element::{Element, slice};
use super::vector::{Instructions, Portable, Vector};
use crate::Result;

/// Elements one task handles.
const BLOCK: usize = 8192;

/// Which function gates. Both are `g / (1 + exp(-z))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `z = g`.
    Silu,
    /// GELU in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415):
    /// `z = 2 sqrt(2 / π) (g + 0.044715 g³)`.
    GeluTanh,
}

/// `2 sqrt(2 / π)`.
pub(crate) const GELU_SLOPE: f32 = 1.595_769;
/// The cube's factor in the tanh form of GELU.
pub(crate) const GELU_CUBE: f32 = 0.044_715;

/// `activation(gate) * up`, element by element; both `[t, intermediate]`, same dtype.
///
/// # Errors
/// A failed tensor operation, as for shapes or dtypes that do not fit.
pub fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if gate.device().is_cpu() {
        return Ok(gate
            .contiguous()?
            .apply_op2_no_bwd(&up.contiguous()?, &Gated(activation))?);
    }
    let gate = match activation {
        Activation::Silu => gate.silu()?,
        Activation::GeluTanh => gate.gelu()?,
    };
    Ok((gate * up)?)
}

struct Gated(Activation);

impl CustomOp2 for Gated {
    fn name(&self) -> &'static str {
        "gated"
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
                "gating of shapes {:?} and {:?}",
                gate_layout.shape(),
                up_layout.shape()
            );
        }
        let storage = match gate {
            CpuStorage::F32(_) => {
                all::<f32>(self.0, slice(gate, gate_layout)?, slice(up, up_layout)?)
            }
            CpuStorage::BF16(_) => {
                all::<bf16>(self.0, slice(gate, gate_layout)?, slice(up, up_layout)?)
            }
            CpuStorage::F16(_) => {
                all::<f16>(self.0, slice(gate, gate_layout)?, slice(up, up_layout)?)
            }
            _ => bail!("gating needs float32, bfloat16 or float16"),
        };
        Ok((storage, gate_layout.shape().clone()))
    }
}

fn all<T: Element>(activation: Activation, gate: &[T], up: &[T]) -> CpuStorage {
    let mut out = vec![T::narrow(0.0); gate.len()];
    let instructions = Instructions::detect();
    let blocks = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK));
    out.par_chunks_mut(BLOCK)
        .zip(blocks)
        .for_each(|(out, (gate, up))| match instructions {
            // SAFETY: the instructions were found on this machine.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Instructions::Avx512 => unsafe { block_avx512(activation, gate, up, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Instructions::Avx2 => unsafe { block_avx2(activation, gate, up, out) },
            Instructions::Portable => block::<T, Portable>(activation, gate, up, out),
        });
    T::to_cpu_storage_owned(out)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn block_avx512<T: Element>(activation: Activation, gate: &[T], up: &[T], out: &mut [T]) {
    block::<T, super::vector::Avx512>(activation, gate, up, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn block_avx2<T: Element>(activation: Activation, gate: &[T], up: &[T], out: &mut [T]) {
    block::<T, super::vector::Avx2>(activation, gate, up, out);
}

#[inline(always)]
fn block<T: Element, V: Vector>(activation: Activation, gate: &[T], up: &[T], out: &mut [T]) {
    match activation {
        Activation::Silu => each::<T, V, false>(gate, up, out),
        Activation::GeluTanh => each::<T, V, true>(gate, up, out),
    }
}

#[inline(always)]
fn each<T: Element, V: Vector, const GELU: bool>(gate: &[T], up: &[T], out: &mut [T]) {
    let l = V::LANES;
    let mut at = 0;
    if let (Some(g), Some(u), Some(out)) = (T::as_f32(gate), T::as_f32(up), T::as_f32_mut(out)) {
        while at + l <= out.len() {
            one::<V, GELU>(V::load(&g[at..]), V::load(&u[at..])).store(&mut out[at..]);
            at += l;
        }
    }
    let (mut g, mut u) = ([0f32; 16], [0f32; 16]);
    while at < out.len() {
        let n = l.min(out.len() - at);
        for i in 0..n {
            (g[i], u[i]) = (gate[at + i].widen(), up[at + i].widen());
        }
        one::<V, GELU>(V::load(&g), V::load(&u)).store(&mut g);
        for i in 0..n {
            out[at + i] = T::narrow(g[i]);
        }
        at += n;
    }
}

/// A function and no closure: those are not inlined into code for one machine's instructions.
#[inline(always)]
fn one<V: Vector, const GELU: bool>(gate: V, up: V) -> V {
    let z = match GELU {
        true => {
            let cubed = gate.mul(gate).fma(V::splat(GELU_CUBE), V::splat(1.0));
            gate.mul(V::splat(GELU_SLOPE)).mul(cubed)
        }
        false => gate,
    };
    let below = z.mul(V::splat(-1.0)).exp().add(V::splat(1.0));
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
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let wanted = match activation {
                Activation::Silu => gate.silu().unwrap(),
                Activation::GeluTanh => gate.gelu().unwrap(),
            };
            let wanted = (wanted * &up).unwrap();
            for (dtype, limit) in [(DType::F32, 1e-5), (DType::BF16, 0.2), (DType::F16, 0.02)] {
                let (gate, up) = (gate.to_dtype(dtype).unwrap(), up.to_dtype(dtype).unwrap());
                let found = gated(activation, &gate, &up).unwrap();
                let found = found.to_dtype(DType::F32).unwrap();
                let gap = (found - &wanted).unwrap().abs().unwrap().max_all().unwrap();
                let gap = gap.to_scalar::<f32>().unwrap();
                assert!(gap < limit, "{activation:?} {dtype:?} {gap}");
            }
        }
    }
}
