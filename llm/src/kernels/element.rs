//! Which numbers CPU kernels read and write.

use candle_core::{CpuStorage, Layout, Result, bail};
use half::{bf16, f16};

/// A stored number. All arithmetic is done in f32.
pub(crate) trait Element: candle_core::WithDType + Send + Sync {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
    /// The numbers themselves if they are f32 already.
    fn as_f32(_values: &[Self]) -> Option<&[f32]> {
        None
    }
    /// As [`Element::as_f32`], to write.
    fn as_f32_mut(_values: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }
    #[inline(always)]
    fn as_f32_mut(values: &mut [Self]) -> Option<&mut [f32]> {
        Some(values)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        f16::from_f32(value)
    }
}

/// The elements of a contiguous tensor.
pub(crate) fn slice<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => bail!("kernel input is not contiguous"),
    }
}
