//! Drawing a share of traffic exactly, and the grid on which latencies are counted.

use crate::{WEIGHT_SUM, Weight};

/// 2^64 mod 10,000: draws whose low half is below it would favour some results.
const BIAS: u64 = 1_616;

/// A uniform whole number below 10,000 from words of 64 random bits, without the bias of a remainder (Lemire, arXiv 1805.10941). A
/// request goes to the candidate if it is below the candidate's weight.
pub fn below_parts(mut word: impl FnMut() -> u64) -> Weight {
    loop {
        let product = u128::from(word()) * u128::from(WEIGHT_SUM);
        if product as u64 >= BIAS {
            return (product >> 64) as Weight;
        }
    }
}

/// 16 buckets an octave, from 1 ns on.
pub const LATENCY_BUCKETS: usize = 1_024;

/// ceil(2^(63 + r/16)).
const MANTISSAS: [u64; 16] = [
    9_223_372_036_854_775_808,
    9_631_725_603_661_576_981,
    10_058_158_527_438_640_871,
    10_503_471_249_702_896_439,
    10_968_499_650_544_839_024,
    11_454_116_617_628_225_966,
    11_961_233_684_655_323_371,
    12_490_802_742_373_206_727,
    13_043_817_825_332_782_213,
    13_621_316_977_754_388_159,
    14_224_384_202_002_324_190,
    14_854_151_493_325_717_732,
    15_511_800_964_685_064_949,
    16_198_567_065_652_879_634,
    16_915_738_899_553_466_671,
    17_664_662_643_191_237_677,
];

/// The smallest latency of the bucket, in nanoseconds: ceil(2^(i/16)), in whole numbers.
pub fn latency_edge_ns(bucket: usize) -> u64 {
    let (octave, step) = (bucket / 16, bucket % 16);
    let shift = 63 - octave as u32;
    let mantissa = MANTISSAS[step];
    // The division rounded up, which cannot overflow.
    (mantissa >> shift) + u64::from(mantissa & ((1 << shift) - 1) != 0)
}

/// The largest bucket whose edge is at most this; 0 ns counts as 1.
pub fn latency_bucket(ns: u64) -> usize {
    let ns = ns.max(1);
    let octave = 63 - ns.leading_zeros();
    let normal = ns << (63 - octave);
    // A straight line through the octave lies below the curve, by less than two steps.
    let mut step = (normal >> 59 & 15) as usize;
    while step < 15 && normal >= MANTISSAS[step + 1] {
        step += 1;
    }
    16 * octave as usize + step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_begins_its_bucket() {
        for bucket in 0..LATENCY_BUCKETS {
            let edge = latency_edge_ns(bucket);
            let of_edge = latency_bucket(edge);
            // Small buckets share an edge; the last of them has it.
            assert!(of_edge >= bucket && latency_edge_ns(of_edge) == edge, "{bucket}: {edge}");
            assert!(edge == 1 || latency_bucket(edge - 1) < bucket, "{bucket}: {edge}");
        }
    }

    #[test]
    fn draws_reject_what_would_be_biased() {
        let mut words = [0, u64::MAX].into_iter();
        assert_eq!(below_parts(|| words.next().expect("two are enough")), 9_999);
    }
}
