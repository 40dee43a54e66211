//! The text of a decimal's two's complement.

/// Bytes of one unscaled value; BIGNUMERIC needs 33.
const BYTES_MAX: usize = 64;

/// Plain decimal text of a big-endian two's complement with `scale` digits behind the point.
pub fn text(bytes: &[u8], scale: u32) -> Result<String, String> {
    if bytes.len() > BYTES_MAX {
        return Err("Invalid NUMERIC value: too many bytes".to_owned());
    }
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        negate(&mut magnitude);
    }
    let digits = digits(magnitude);
    let scale = usize::try_from(scale).map_err(|error| error.to_string())?;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (integer, fraction) = padded.split_at(padded.len() - scale);
    let (sign, point) = (if negative { "-" } else { "" }, if scale > 0 { "." } else { "" });
    Ok(format!("{sign}{integer}{point}{fraction}"))
}

fn negate(bytes: &mut [u8]) {
    let mut carry = true;
    for byte in bytes.iter_mut().rev() {
        let (inverted, over) = (!*byte).overflowing_add(u8::from(carry));
        (*byte, carry) = (inverted, over);
    }
}

/// Decimal digits of a big-endian magnitude, by repeated division.
fn digits(mut magnitude: Vec<u8>) -> String {
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut magnitude {
            let value = remainder * 256 + u32::from(*byte);
            (*byte, remainder) = ((value / 10) as u8, value % 10);
        }
        digits.push(char::from_digit(remainder, 10).unwrap_or('0'));
    }
    if digits.is_empty() { "0".to_owned() } else { digits.iter().rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn against_machine_integers() {
        for value in [0, 1, -1, 127, -128, 128, 255, -256, 12_345, i128::MAX, i128::MIN] {
            assert_eq!(text(&value.to_be_bytes(), 0).unwrap(), value.to_string());
        }
    }

    #[test]
    fn the_point_is_where_the_scale_says() {
        for (bytes, scale, expected) in [
            (&[0x04, 0xd2][..], 2, "12.34"),
            (&[0xff][..], 2, "-0.01"),
            (&[0x05][..], 3, "0.005"),
            (&[][..], 1, "0.0"),
        ] {
            assert_eq!(text(bytes, scale).unwrap(), expected);
        }
        assert!(text(&[1; 65], 0).is_err());
    }
}
