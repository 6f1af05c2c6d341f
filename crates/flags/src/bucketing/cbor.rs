//! Deterministic CBOR (RFC 8949 §4.2.1) of JSON values, straight into the hash.
//!
//! **Invariant:** the shortest form of every head and float; whole numbers as integers wherever they fit 64 bits, as flagd's third
//! generation of `fractional` wants it. Not here: reading CBOR.

use serde_json::{Map, Value};

use super::murmur::Murmur;

pub(crate) const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
pub(crate) const LIST: u8 = 4;
const OBJECT: u8 = 5;

/// Where bytes go: the hash, or a buffer for sorting keys.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Murmur {
    fn put(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// The head of an item: its kind, and a number in the least bytes.
pub(crate) fn head(kind: u8, number: u64, sink: &mut impl Sink) {
    let kind = kind << 5;
    let bytes = number.to_be_bytes();
    match number {
        0..=23 => sink.put(&[kind | bytes[7]]),
        24..=0xff => sink.put(&[kind | 24, bytes[7]]),
        0x100..=0xffff => sink.put(&[kind | 25, bytes[6], bytes[7]]),
        0x1_0000..=0xffff_ffff => sink.put(&[kind | 26, bytes[4], bytes[5], bytes[6], bytes[7]]),
        _ => {
            sink.put(&[kind | 27]);
            sink.put(&bytes);
        }
    }
}

pub(crate) fn text(text: &str, sink: &mut impl Sink) {
    head(TEXT, text.len() as u64, sink);
    sink.put(text.as_bytes());
}

pub(crate) fn bool(value: bool, sink: &mut impl Sink) {
    sink.put(&[if value { 0xf5 } else { 0xf4 }]);
}

pub(crate) fn null(sink: &mut impl Sink) {
    sink.put(&[0xf6]);
}

pub(crate) fn integer(number: i64, sink: &mut impl Sink) {
    match u64::try_from(number) {
        Ok(number) => head(UNSIGNED, number, sink),
        Err(_) => head(NEGATIVE, !number as u64, sink),
    }
}

/// An integer where it is one within -2^63..2^64, otherwise the shortest of half, single and double that keeps the value.
pub(crate) fn number(number: f64, sink: &mut impl Sink) {
    // 2^63 and 2^64: exact as doubles.
    const I64_END: f64 = 9_223_372_036_854_775_808.0;
    const U64_END: f64 = 18_446_744_073_709_551_616.0;
    if number.fract() == 0.0 && (-I64_END..U64_END).contains(&number) {
        return if number < 0.0 { integer(number as i64, sink) } else { head(UNSIGNED, number as u64, sink) };
    }
    if number.is_nan() {
        return sink.put(&[0xf9, 0x7e, 0x00]);
    }
    let single = number as f32;
    if f64::from(single) != number {
        sink.put(&[0xfb]);
        return sink.put(&number.to_bits().to_be_bytes());
    }
    match half(single) {
        Some(half) => {
            sink.put(&[0xf9]);
            sink.put(&half.to_be_bytes());
        }
        None => {
            sink.put(&[0xfa]);
            sink.put(&single.to_bits().to_be_bytes());
        }
    }
}

/// The bits of the half-precision float of the same value (IEEE 754 binary16), if there is one.
fn half(single: f32) -> Option<u16> {
    let bits = single.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        128 => (fraction == 0).then_some(sign | 0x7c00),
        -14..=15 => (fraction & 0x1fff == 0).then_some(sign | (((exponent + 15) as u16) << 10) | (fraction >> 13) as u16),
        // Without the leading one, in units of 2^-24.
        -24..=-15 => {
            let whole = fraction | 0x80_0000;
            let shift = (-exponent - 1) as u32;
            (whole & ((1 << shift) - 1) == 0).then_some(sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}

/// A whole value, its numbers normalised at every depth.
pub(crate) fn value(given: &Value, sink: &mut impl Sink) {
    match given {
        Value::Null => null(sink),
        Value::Bool(given) => bool(*given, sink),
        Value::Number(given) => match (given.as_i64(), given.as_u64()) {
            (Some(given), _) => integer(given, sink),
            (_, Some(given)) => head(UNSIGNED, given, sink),
            _ => number(given.as_f64().unwrap_or(f64::NAN), sink),
        },
        Value::String(given) => text(given, sink),
        Value::Array(items) => {
            head(LIST, items.len() as u64, sink);
            items.iter().for_each(|item| value(item, sink));
        }
        Value::Object(entries) => object(entries, sink),
    }
}

/// Keys in the order of their encoded bytes: shorter ones first, as their length leads.
pub(crate) fn object(entries: &Map<String, Value>, sink: &mut impl Sink) {
    head(OBJECT, entries.len() as u64, sink);
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|(one, _), (other, _)| one.len().cmp(&other.len()).then_with(|| one.cmp(other)));
    for (key, given) in sorted {
        text(key, sink);
        value(given, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, hex: &str) {
        let mut bytes = Vec::new();
        value(&serde_json::from_str(json).expect("JSON"), &mut bytes);
        let found: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, hex, "{json}");
    }

    /// The examples of RFC 8949, appendix A, as far as JSON can say them, and what normalising changes.
    #[test]
    fn examples_of_the_rfc() {
        for (json, hex) in [
            ("0", "00"),
            ("23", "17"),
            ("24", "1818"),
            ("100", "1864"),
            ("1000", "1903e8"),
            ("1000000", "1a000f4240"),
            ("1000000000000", "1b000000e8d4a51000"),
            ("18446744073709551615", "1bffffffffffffffff"),
            ("-1", "20"),
            ("-1000", "3903e7"),
            ("-9223372036854775808", "3b7fffffffffffffff"),
            ("1.1", "fb3ff199999999999a"),
            ("1.5", "f93e00"),
            ("3.4028234663852886e+38", "fa7f7fffff"),
            ("1.0e+300", "fb7e37e43c8800759c"),
            ("5.960464477539063e-8", "f90001"),
            ("0.00006103515625", "f90400"),
            ("-4.1", "fbc010666666666666"),
            ("1.0", "01"),
            ("-0.0", "00"),
            ("65504.0", "19ffe0"),
            ("false", "f4"),
            ("null", "f6"),
            ("\"IETF\"", "6449455446"),
            ("\"\u{6c34}\"", "63e6b0b4"),
            ("[1,[2,3]]", "8201820203"),
            ("{\"b\":[2,3],\"a\":1,\"aa\":0}", "a3616101616282020362616100"),
        ] {
            check(json, hex);
        }
    }

    #[test]
    fn every_half_keeps_its_bits() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from((bits >> 10) & 0x1f), f32::from(bits & 0x3ff));
            let size = match exponent {
                0 => fraction * 2_f32.powi(-24),
                0x1f if fraction == 0.0 => f32::INFINITY,
                0x1f => continue,
                _ => (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
            };
            if size != 0.0 {
                assert_eq!(half(if bits & 0x8000 == 0 { size } else { -size }), Some(bits));
            }
        }
        assert_eq!(half(1.000_1), None);
    }
}
