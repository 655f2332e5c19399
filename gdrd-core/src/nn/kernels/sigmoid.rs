//! The logistic function in a form that the compiler turns into vectors.

/// `1 / (1 + exp(-x))`, within 2 units in the last place of what the definition gives.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `exp(x)`: a power of two times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cody and Waite's reduction, the coefficients of
/// Cephes' `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Beyond these, 1 + exp(-x) is 1 or the sigmoid is zero to float32.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let power = (x * std::f32::consts::LOG2_E).round_ties_even();
    let rest = (x - power * 0.693_359_4) + power * 2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * rest + coefficient;
    }
    let fraction = sum * rest * rest + rest + 1.0;
    // Adding 1.5 * 2^23 leaves the whole number in the last bits; of what is no number, the product makes none.
    let exponent = (power + 12_582_912.0).to_bits();
    fraction * f32::from_bits(exponent.wrapping_add(127) << 23)
}

#[cfg(test)]
mod tests {
    use super::sigmoid;

    #[test]
    fn it_is_the_logistic_function() {
        for step in -100_000..=100_000 {
            let x = step as f32 * 1e-3;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let found = f64::from(sigmoid(x));
            assert!((found - exact).abs() <= 3e-7 * exact + 1e-37, "{x}: {found} and {exact}");
        }
        assert_eq!((sigmoid(f32::INFINITY), sigmoid(0.0)), (1.0, 0.5));
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37 && sigmoid(f32::NAN).is_nan());
    }
}
