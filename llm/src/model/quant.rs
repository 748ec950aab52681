//! Products with a matrix whose numbers stay quantised: some rows at a time are unpacked to f32 and
//! multiplied, so that only the quantised matrix takes memory.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::content::Content;
use super::gguf::Packing;
use crate::{Error, Result};

/// Numbers that are unpacked at once: 4 MB, so that what was unpacked is still in the cache when it
/// is multiplied.
const TILE_NUMBERS: usize = 1 << 20;

/// A quantised `[out, in]` matrix on the CPU.
#[derive(Debug)]
pub struct Quant {
    content: Arc<Content>,
    /// Its bytes in the content.
    range: Range<usize>,
    packing: Packing,
    out: usize,
    input: usize,
    row_bytes: usize,
    /// Which of the stored rows is each row; none if they lie in order.
    order: Option<Vec<u32>>,
}

impl Quant {
    pub(crate) fn new(
        content: Arc<Content>,
        range: Range<usize>,
        packing: Packing,
        (out, input): (usize, usize),
        order: Option<Vec<u32>>,
    ) -> Result<Self> {
        let row_bytes = input / packing.numbers() * packing.bytes();
        let fits = input.is_multiple_of(packing.numbers())
            && range.len() == out * row_bytes
            && range.end <= content.len();
        if !fits {
            return Err(Error::internal(format!(
                "a quantised matrix of {out} rows of {input} numbers in {} bytes",
                range.len()
            )));
        }
        Ok(Self {
            content,
            range,
            packing,
            out,
            input,
            row_bytes,
            order,
        })
    }

    /// `(out, in)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.out, self.input)
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    fn unpack_row(&self, row: usize, to: &mut [f32]) {
        let stored = match &self.order {
            Some(order) => order[row] as usize,
            None => row,
        };
        let start = self.range.start + stored * self.row_bytes;
        self.packing
            .unpack(&self.content[start..start + self.row_bytes], to);
    }

    /// Rows in f32, `[rows, in]`.
    fn tile(&self, rows: Range<usize>) -> Result<Tensor> {
        let mut values = vec![0f32; rows.len() * self.input];
        values
            .par_chunks_mut(self.input)
            .with_min_len(8)
            .enumerate()
            .for_each(|(i, to)| self.unpack_row(rows.start + i, to));
        let shape = (rows.len(), self.input);
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (out, step) = (self.out, (TILE_NUMBERS / self.input).max(1));
        (0..out)
            .step_by(step)
            .map(move |first| first..out.min(first + step))
    }

    /// As `Matrix::forward`: computed in f32, the result in `x`'s dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let mut parts = Vec::new();
        for rows in self.tiles() {
            parts.push(wide.matmul(&self.tile(rows)?.t()?)?);
        }
        let y = match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 1)?,
        };
        Ok(y.to_dtype(x.dtype())?)
    }

    /// As `Matrix::forward_t`.
    pub(crate) fn forward_t(&self, dy: &Tensor) -> Result<Tensor> {
        let wide = dy.to_dtype(DType::F32)?;
        let mut sum: Option<Tensor> = None;
        for rows in self.tiles() {
            let part = wide.narrow(1, rows.start, rows.len())?.contiguous()?;
            let part = part.matmul(&self.tile(rows)?)?;
            sum = Some(match sum {
                Some(sum) => crate::kernels::add_into(sum, &part)?,
                None => part,
            });
        }
        let dx = sum.ok_or_else(|| Error::internal("a quantised matrix without rows"))?;
        Ok(dx.to_dtype(dy.dtype())?)
    }

    /// The rows of the given numbers, `[ids, in]` f32.
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.out) {
            return Err(Error::internal(format!("row {id} of {} rows", self.out)));
        }
        let mut values = vec![0f32; ids.len() * self.input];
        for (to, id) in values.chunks_exact_mut(self.input).zip(ids) {
            self.unpack_row(*id as usize, to);
        }
        Ok(Tensor::from_vec(
            values,
            (ids.len(), self.input),
            &Device::Cpu,
        )?)
    }

    /// The whole matrix in f32, `[out, in]`.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        self.tile(0..self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quant(out: usize, input: usize, order: Option<Vec<u32>>) -> Quant {
        // Q8_0: a scale and 32 bytes; every byte is a number.
        let mut bytes = vec![];
        for block in 0..out * input / 32 {
            bytes.extend(half::f16::from_f32(0.01 + block as f32 / 1000.0).to_le_bytes());
            bytes.extend((0..32).map(|i| (i * 37 + block * 11) as u8));
        }
        let range = 0..bytes.len();
        let content = Arc::new(Content::Owned(bytes));
        Quant::new(content, range, Packing::Q8_0, (out, input), order).unwrap()
    }

    fn gap(a: &Tensor, b: &Tensor) -> f32 {
        let gap = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        gap.to_scalar::<f32>().unwrap()
    }

    #[test]
    fn products_are_those_of_the_unpacked_matrix() {
        // More rows than a tile has.
        let (out, input) = (TILE_NUMBERS / 4096 * 2 + 3, 4096);
        let quant = quant(out, input, None);
        assert!(quant.tiles().count() > 2);
        let w = quant.to_tensor().unwrap();
        let random = |shape| Tensor::randn(0f32, 0.05, shape, &Device::Cpu).unwrap();
        let (x, dy) = (random((3, input)), random((3, out)));
        let wanted = x.matmul(&w.t().unwrap()).unwrap();
        let largest = wanted.abs().unwrap().max_all().unwrap();
        let limit = 1e-5 * largest.to_scalar::<f32>().unwrap();
        assert!(gap(&quant.forward(&x).unwrap(), &wanted) < limit);
        let back = dy.matmul(&w).unwrap();
        let largest = back.abs().unwrap().max_all().unwrap();
        let limit = 1e-5 * largest.to_scalar::<f32>().unwrap();
        assert!(gap(&quant.forward_t(&dy).unwrap(), &back) < limit);
        let rows = quant.rows(&[7, 0]).unwrap();
        let ids = Tensor::new(&[7u32, 0], &Device::Cpu).unwrap();
        assert_eq!(gap(&rows, &w.index_select(&ids, 0).unwrap()), 0.0);
        assert!(quant.rows(&[out as u32]).is_err());
    }

    #[test]
    fn rows_may_lie_in_another_order() {
        let (plain, turned) = (quant(3, 32, None), quant(3, 32, Some(vec![2, 0, 1])));
        let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
        let wanted = plain.to_tensor().unwrap().index_select(&order, 0).unwrap();
        assert_eq!(gap(&turned.to_tensor().unwrap(), &wanted), 0.0);
        let wrong = Quant::new(
            Arc::new(Content::Static(&[])),
            0..0,
            Packing::Q8_0,
            (1, 33),
            None,
        );
        assert!(wrong.is_err());
    }
}
