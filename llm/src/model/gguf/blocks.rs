//! How quantised numbers are packed: blocks of 32 or 256 with their scales (formats: ggml's
//! `ggml-quants.h`). Only unpacking to f32 is here.

use half::{bf16, f16};

/// How the numbers of a tensor are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Type number in the file, packing, name, numbers and bytes of a block.
const PACKINGS: &[(u32, Packing, &str, usize, usize)] = &[
    (0, Packing::F32, "F32", 1, 4),
    (1, Packing::F16, "F16", 1, 2),
    (30, Packing::Bf16, "BF16", 1, 2),
    (2, Packing::Q4_0, "Q4_0", 32, 18),
    (3, Packing::Q4_1, "Q4_1", 32, 20),
    (6, Packing::Q5_0, "Q5_0", 32, 22),
    (7, Packing::Q5_1, "Q5_1", 32, 24),
    (8, Packing::Q8_0, "Q8_0", 32, 34),
    (12, Packing::Q4K, "Q4_K", 256, 144),
    (13, Packing::Q5K, "Q5_K", 256, 176),
    (14, Packing::Q6K, "Q6_K", 256, 210),
];

/// Types that are not unpacked here, for messages.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// The name of a type of the file.
pub(crate) fn type_name(kind: u32) -> String {
    let known = PACKINGS.iter().map(|(k, _, name, ..)| (*k, *name));
    let all = known.chain(OTHERS.iter().copied());
    let found = all.into_iter().find(|(k, _)| *k == kind);
    found.map_or(format!("number {kind}"), |(_, name)| name.to_string())
}

impl Packing {
    /// The packing of a type number.
    pub(crate) fn of(kind: u32) -> Option<Self> {
        let found = PACKINGS.iter().find(|(k, ..)| *k == kind);
        found.map(|(_, packing, ..)| *packing)
    }

    /// All that are unpacked here, as a list for messages.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = PACKINGS.iter().map(|(_, _, name, ..)| *name).collect();
        names.join(", ")
    }

    fn sizes(self) -> (usize, usize) {
        let found = PACKINGS.iter().find(|(_, packing, ..)| *packing == self);
        found.map_or((1, 4), |(.., numbers, bytes)| (*numbers, *bytes))
    }

    /// Numbers of a block.
    pub(crate) fn numbers(self) -> usize {
        self.sizes().0
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        self.sizes().1
    }

    /// Whether numbers stand alone and are no part of a block.
    pub(crate) fn is_plain(self) -> bool {
        self.numbers() == 1
    }

    /// Unpacks whole blocks; `out` has room for exactly their numbers.
    pub(crate) fn unpack(self, packed: &[u8], out: &mut [f32]) {
        let (numbers, bytes) = self.sizes();
        let blocks = packed
            .chunks_exact(bytes)
            .zip(out.chunks_exact_mut(numbers));
        match self {
            Self::F32 => {
                blocks.for_each(|(b, y)| y[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            }
            Self::F16 => blocks.for_each(|(b, y)| y[0] = half(b)),
            Self::Bf16 => {
                blocks.for_each(|(b, y)| y[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32());
            }
            Self::Q4_0 => blocks.for_each(|(b, y)| nibbles(&b[2..], y, half(b), -8.0 * half(b))),
            Self::Q4_1 => blocks.for_each(|(b, y)| nibbles(&b[4..], y, half(b), half(&b[2..]))),
            Self::Q5_0 => {
                blocks.for_each(|(b, y)| five(&b[6..], &b[2..], y, half(b), -16.0 * half(b)));
            }
            Self::Q5_1 => {
                blocks.for_each(|(b, y)| five(&b[8..], &b[4..], y, half(b), half(&b[2..])));
            }
            Self::Q8_0 => blocks.for_each(|(b, y)| {
                let d = half(b);
                for (y, q) in y.iter_mut().zip(&b[2..]) {
                    *y = d * f32::from(*q as i8);
                }
            }),
            Self::Q4K => blocks.for_each(|(b, y)| q4_k(b, y)),
            Self::Q5K => blocks.for_each(|(b, y)| q5_k(b, y)),
            Self::Q6K => blocks.for_each(|(b, y)| q6_k(b, y)),
        }
    }
}

#[inline(always)]
fn half(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

/// 32 numbers of 4 bits: low halves first, then high ones.
#[inline(always)]
fn nibbles(q: &[u8], y: &mut [f32], d: f32, m: f32) {
    let (low, high) = y.split_at_mut(16);
    for i in 0..16 {
        low[i] = f32::from(q[i] & 15).mul_add(d, m);
        high[i] = f32::from(q[i] >> 4).mul_add(d, m);
    }
}

/// As [`nibbles`], with a fifth bit each in `h`.
#[inline(always)]
fn five(q: &[u8], h: &[u8], y: &mut [f32], d: f32, m: f32) {
    let h = u32::from_le_bytes([h[0], h[1], h[2], h[3]]);
    let (low, high) = y.split_at_mut(16);
    for i in 0..16 {
        let top = (h >> i) as u8 & 1;
        low[i] = f32::from(q[i] & 15 | top << 4).mul_add(d, m);
        let top = (h >> (i + 16)) as u8 & 1;
        high[i] = f32::from(q[i] >> 4 | top << 4).mul_add(d, m);
    }
}

/// Scale and minimum of the eight parts of a block, 6 bits each in 12 bytes.
#[inline(always)]
fn scale_and_minimum(s: &[u8], part: usize) -> (f32, f32) {
    let (scale, minimum) = match part < 4 {
        true => (s[part] & 63, s[part + 4] & 63),
        false => (
            s[part + 4] & 15 | (s[part - 4] >> 6) << 4,
            s[part + 4] >> 4 | (s[part] >> 6) << 4,
        ),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Parts of 32: two share their bytes, low halves first.
#[inline(always)]
fn q4_k(b: &[u8], y: &mut [f32]) {
    let (d, least, scales) = (half(b), half(&b[2..]), &b[4..16]);
    for (pair, (q, y)) in b[16..]
        .chunks_exact(32)
        .zip(y.chunks_exact_mut(64))
        .enumerate()
    {
        let (low, high) = y.split_at_mut(32);
        let (s, m) = scale_and_minimum(scales, 2 * pair);
        let (s, m) = (d * s, least * m);
        for i in 0..32 {
            low[i] = s * f32::from(q[i] & 15) - m;
        }
        let (s, m) = scale_and_minimum(scales, 2 * pair + 1);
        let (s, m) = (d * s, least * m);
        for i in 0..32 {
            high[i] = s * f32::from(q[i] >> 4) - m;
        }
    }
}

/// As [`q4_k`], with a fifth bit each: those of a part are one bit of each of 32 bytes.
#[inline(always)]
fn q5_k(b: &[u8], y: &mut [f32]) {
    let (d, least, scales, tops) = (half(b), half(&b[2..]), &b[4..16], &b[16..48]);
    for (pair, (q, y)) in b[48..]
        .chunks_exact(32)
        .zip(y.chunks_exact_mut(64))
        .enumerate()
    {
        let (low, high) = y.split_at_mut(32);
        let (s, m) = scale_and_minimum(scales, 2 * pair);
        let (s, m) = (d * s, least * m);
        for i in 0..32 {
            let top = (tops[i] >> (2 * pair) & 1) << 4;
            low[i] = s * f32::from(q[i] & 15 | top) - m;
        }
        let (s, m) = scale_and_minimum(scales, 2 * pair + 1);
        let (s, m) = (d * s, least * m);
        for i in 0..32 {
            let top = (tops[i] >> (2 * pair + 1) & 1) << 4;
            high[i] = s * f32::from(q[i] >> 4 | top) - m;
        }
    }
}

/// Halves of 128 numbers of 6 bits: four in 64 bytes, two more in 32, a scale for each 16.
#[inline(always)]
fn q6_k(b: &[u8], y: &mut [f32]) {
    let (low, rest) = b.split_at(128);
    let (top, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half(d);
    for (part, y) in y.chunks_exact_mut(128).enumerate() {
        let (low, top) = (&low[64 * part..][..64], &top[32 * part..][..32]);
        let scales = &scales[8 * part..][..8];
        for i in 0..32 {
            let quads = [
                low[i] & 15 | (top[i] & 3) << 4,
                low[i + 32] & 15 | (top[i] >> 2 & 3) << 4,
                low[i] >> 4 | (top[i] >> 4 & 3) << 4,
                low[i + 32] >> 4 | (top[i] >> 6) << 4,
            ];
            for (quad, q) in quads.into_iter().enumerate() {
                let scale = d * f32::from(scales[2 * quad + i / 16] as i8);
                y[32 * quad + i] = scale * (f32::from(q) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/python/gguf_files.py blocks` made random blocks of every type and had llama.cpp's own
    /// package unpack them.
    #[test]
    fn every_packing_is_unpacked_as_ggml_does() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/gguf/blocks.safetensors"
        );
        let golden = candle_core::safetensors::load(path, &candle_core::Device::Cpu).unwrap();
        for (_, packing, name, numbers, bytes) in PACKINGS {
            let flat = |key: &str| golden[&format!("{key}.{name}")].flatten_all().unwrap();
            let raw = flat("raw").to_vec1::<u8>().unwrap();
            let wanted = flat("numbers").to_vec1::<f32>().unwrap();
            assert_eq!(wanted.len(), 512);
            assert_eq!(raw.len(), 512 / numbers * bytes);
            let mut found = vec![0f32; 512];
            packing.unpack(&raw, &mut found);
            let largest = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let gap = (found - wanted).abs() / largest;
                assert!(gap < 1e-6, "{name} {i}: {found}, not {wanted}");
            }
        }
    }

    #[test]
    fn types_have_names() {
        assert_eq!(type_name(12), "Q4_K");
        assert_eq!(type_name(23), "IQ4_XS");
        assert_eq!(type_name(4242), "number 4242");
        assert_eq!(Packing::of(23), None);
    }
}
