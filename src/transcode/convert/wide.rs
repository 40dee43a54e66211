//! A 256-bit unsigned integer with just the arithmetic that decimals need.

/// Little-endian limbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wide(pub [u64; 4]);

impl Wide {
    /// From 128 bits.
    pub fn from_u128(value: u128) -> Self {
        Self([low(value), low(value >> 64), 0, 0])
    }

    /// The value, if it fits 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        let [value, 0, 0, 0] = self.0 else { return None };
        Some(value)
    }

    /// The value, if it fits 128 bits.
    pub fn as_u128(&self) -> Option<u128> {
        let [a, b, 0, 0] = self.0 else { return None };
        Some(u128::from(a) | u128::from(b) << 64)
    }

    /// Whether this is zero.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The most significant bit.
    pub fn top_bit(&self) -> bool {
        let [.., top] = self.0;
        top >> 63 == 1
    }

    /// `self × factor + addend`, or `None` on overflow.
    pub fn mul_add(mut self, factor: u64, addend: u64) -> Option<Self> {
        let mut carry = u128::from(addend);
        for limb in &mut self.0 {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = low(carry);
            carry >>= 64;
        }
        (carry == 0).then_some(self)
    }

    /// Divides in place and returns the remainder. `divisor` must not be zero.
    pub fn div_rem(&mut self, divisor: u64) -> u64 {
        let mut rem = 0_u128;
        for limb in self.0.iter_mut().rev() {
            let part = rem << 64 | u128::from(*limb);
            *limb = low(part / u128::from(divisor));
            rem = part % u128::from(divisor);
        }
        low(rem)
    }

    /// `self × 10^power`, or `None` on overflow.
    pub fn scale_up(mut self, mut power: u32) -> Option<Self> {
        if self.is_zero() {
            return Some(self);
        }
        if let (Some(small), 0..=19) = (self.as_u64(), power) {
            return Some(Self::from_u128(u128::from(small) * u128::from(10_u64.pow(power))));
        }
        while power > 0 {
            let step = power.min(19);
            self = self.mul_add(10_u64.pow(step), 0)?;
            power -= step;
        }
        Some(self)
    }

    /// `self ÷ 10^power`, or `None` if that is not whole.
    pub fn scale_down(mut self, mut power: u32) -> Option<Self> {
        while power > 0 && !self.is_zero() {
            let step = power.min(19);
            if self.div_rem(10_u64.pow(step)) != 0 {
                return None;
            }
            power -= step;
        }
        Some(self)
    }

    /// Two's complement.
    pub fn negate(mut self) -> Self {
        let mut carry = true;
        for limb in &mut self.0 {
            (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
        }
        self
    }
}

/// The low 64 bits.
fn low(value: u128) -> u64 {
    (value & u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn multiplication_and_division_undo_each_other(
            limbs: [u64; 2], factor in 1_u64.., addend: u64
        ) {
            let addend = addend % factor;
            let wide = Wide([limbs[0], limbs[1], 0, 0]);
            let mut product = wide.mul_add(factor, addend).unwrap();
            prop_assert_eq!(product.div_rem(factor), addend);
            prop_assert_eq!(product, wide);
        }
    }

    #[test]
    fn overflow_and_fractions_are_noticed() {
        assert_eq!(Wide([0, 0, 0, 1 << 63]).mul_add(2, 0), None);
        assert_eq!(Wide::from_u128(150).scale_down(2), None);
        assert_eq!(Wide::from_u128(1500).scale_down(2), Some(Wide::from_u128(15)));
        assert_eq!(Wide::from_u128(1).scale_up(78), None);
        assert_eq!(Wide::from_u128(1).negate(), Wide([u64::MAX; 4]));
    }
}
