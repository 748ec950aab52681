//! Which vector instructions CPU kernels use: AVX-512 or AVX2 where the machine has them, plain
//! arrays elsewhere. Kernels are written once, over the trait.

use std::f32::consts::LOG2_E;

/// A vector of f32. Methods are inlined into the `target_feature` function that calls the kernel.
pub(crate) trait Vector: Copy {
    /// Numbers in a vector.
    const LANES: usize;
    fn splat(value: f32) -> Self;
    /// The first `LANES` numbers of a slice, which must have that many.
    fn load(from: &[f32]) -> Self;
    /// Writes the first `LANES` numbers of a slice, which must have that many.
    fn store(self, to: &mut [f32]);
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    /// `self * a + b`.
    fn fma(self, a: Self, b: Self) -> Self;
    /// 2 to the power of each number, which must be an integer from -126 to 127.
    fn pow2(self) -> Self;

    /// The sum of all lanes.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0f32; 16];
        self.store(&mut lanes);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut lanes = [0f32; 16];
        self.store(&mut lanes);
        lanes[..Self::LANES]
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max)
    }

    /// `exp` to about 2 units in the last place: `2^n * p(r)` with `x = n ln 2 + r`; the
    /// polynomial is that of Cephes' `expf`. Arguments below -87.3 are taken as -87.3.
    #[inline(always)]
    fn exp(self) -> Self {
        let round = Self::splat(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer
        let x = self.max(Self::splat(-87.3)).min(Self::splat(88.0));
        let n = x
            .fma(Self::splat(LOG2_E), round)
            .add(Self::splat(-12_582_912.0));
        let r = n.fma(
            Self::splat(2.121_944_4e-4),
            n.fma(Self::splat(-0.693_359_4), x),
        );
        let mut p = Self::splat(1.987_569_2e-4);
        for c in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ] {
            p = p.fma(r, Self::splat(c));
        }
        p.fma(r.mul(r), r).add(Self::splat(1.0)).mul(n.pow2())
    }
}

/// Eight numbers without special instructions.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        Self(std::array::from_fn(|i| from[i]))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..8].copy_from_slice(&self.0);
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn fma(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        Self(
            self.0
                .map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32)),
        )
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::Vector;

    /// Eight numbers in a register. Only used below a function that enables avx2 and fma.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256);

    /// Sixteen numbers in a register. Only used below a function that enables avx512f.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

    // SAFETY of all blocks in this module: the instructions exist because kernels instantiate
    // these types only below `kernels::attention_cpu::run_*` and `kernels::gated::block_*`, which
    // are called after the machine was asked; loads and stores are bounds-checked just before.
    impl Vector for Avx2 {
        const LANES: usize = 8;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            Self(unsafe { _mm256_set1_ps(value) })
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            Self(unsafe { _mm256_loadu_ps(from[..8].as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut [f32]) {
            unsafe { _mm256_storeu_ps(to[..8].as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm256_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            Self(unsafe { _mm256_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(unsafe { _mm256_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(unsafe { _mm256_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm256_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn pow2(self) -> Self {
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
            }
        }
    }

    impl Vector for Avx512 {
        const LANES: usize = 16;
        #[inline(always)]
        fn splat(value: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            Self(unsafe { _mm512_loadu_ps(from[..16].as_ptr()) })
        }
        #[inline(always)]
        fn store(self, to: &mut [f32]) {
            unsafe { _mm512_storeu_ps(to[..16].as_mut_ptr(), self.0) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn fma(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn sum(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
        #[inline(always)]
        fn largest(self) -> f32 {
            unsafe { _mm512_reduce_max_ps(self.0) }
        }
        #[inline(always)]
        fn pow2(self) -> Self {
            unsafe {
                let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
            }
        }
    }
}

/// The widest instructions of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// What this machine has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<V: Vector>() {
        for i in (-8700..8800).step_by(7) {
            let x = i as f32 / 100.0;
            let mut found = [0f32; 16];
            V::splat(x).exp().store(&mut found);
            let wanted = f64::from(x).exp();
            for found in &found[..V::LANES] {
                assert!(
                    (f64::from(*found) / wanted - 1.0).abs() < 4e-7,
                    "exp({x}) = {found}"
                );
            }
        }
        let numbers: Vec<f32> = (0..16).map(|i| (i * 7 % 5) as f32).collect();
        let vector = V::load(&numbers);
        assert_eq!(vector.sum(), numbers[..V::LANES].iter().sum::<f32>());
        assert_eq!(vector.largest(), 4.0);
    }

    #[test]
    fn all_instructions_agree() {
        check::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
            {
                check::<Avx2>();
            }
            if std::arch::is_x86_feature_detected!("avx512f") {
                check::<Avx512>();
            }
        }
    }
}
