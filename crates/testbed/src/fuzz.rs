//! Fuzzing on stable: inputs that were mutated, a seed that is told, and a time limit.
//!
//! A short run is part of the tests; `cargo xtask fuzz --seconds N` makes it a long one. Each input has a seed of its own, which is told
//! when it fails: with `CHANGEOVER_FUZZ_SEED` it is made again, alone.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fastrand::Rng;

const SECONDS: &str = "CHANGEOVER_FUZZ_SECONDS";
const SEED: &str = "CHANGEOVER_FUZZ_SEED";
/// As a test among others.
const SHORT: Duration = Duration::from_millis(300);
const MUTATIONS_MAX: usize = 12;
const INPUT_BYTES_MAX: usize = 128 * 1024;
const SHOWN_BYTES_MAX: usize = 4096;

/// Gives `check` mutations of the samples, cut and joined with each other and with the words of the language, until the time is over.
/// `check` panics where something does not hold. The generator is for what else it wants to draw.
///
/// # Panics
/// As `check` does; before that, the seed and the input are written to standard error.
pub fn run(name: &str, samples: &[&[u8]], words: &[&[u8]], check: impl Fn(&[u8], &mut Rng)) {
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let alone = number(SEED);
    let first = alone.unwrap_or_else(|| fastrand::u64(..));
    let until = Instant::now() + number(SECONDS).map_or(SHORT, Duration::from_secs);
    eprintln!("fuzz {name}: seed {first}");
    let mut count = 0u64;
    loop {
        let seed = first.wrapping_add(count);
        let mut rng = Rng::with_seed(seed);
        let input = mutated(samples, words, &mut rng);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&input, &mut rng))) {
            eprintln!("fuzz {name}: {SEED}={seed} fails after {count} inputs with b\"{}\"", shown(&input));
            resume_unwind(panic);
        }
        count += 1;
        if alone.is_some() || Instant::now() >= until {
            break;
        }
    }
    eprintln!("fuzz {name}: {count} inputs");
}

fn shown(input: &[u8]) -> String {
    input[..input.len().min(SHOWN_BYTES_MAX)].escape_ascii().to_string()
}

fn mutated(samples: &[&[u8]], words: &[&[u8]], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.choice(samples).map_or_else(Vec::new, |sample| sample.to_vec());
    for _ in 0..rng.usize(0..=MUTATIONS_MAX) {
        let at = rng.usize(0..=input.len());
        let end = (at + length(rng)).min(input.len());
        match rng.u8(0..9) {
            0 if at < input.len() => input[at] ^= 1 << rng.u8(0..8),
            1 if at < input.len() => input[at] = rng.u8(..),
            2 => drop(input.drain(at..end)),
            3 => input.insert(at, *rng.choice(b"\0\t\n\r :;,=0\x7f\x80\xff").expect("not empty")),
            4 => insert(&mut input, at, rng.choice(words).copied().unwrap_or_default()),
            5 => {
                let again = input[at..end].to_vec();
                insert(&mut input, at, &again.repeat(rng.usize(1..=3)));
            }
            6 => {
                let other = rng.choice(samples).copied().unwrap_or_default();
                let from = rng.usize(0..=other.len());
                insert(&mut input, at, &other[from..(from + length(rng)).min(other.len())]);
            }
            7 => input.truncate(at),
            _ => {
                let noise: Vec<u8> = (0..length(rng)).map(|_| rng.u8(..)).collect();
                insert(&mut input, at, &noise);
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// Mostly short.
fn length(rng: &mut Rng) -> usize {
    let most = 1usize << rng.u32(0..10);
    rng.usize(0..=most)
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

/// The input in pieces of any size, one after the other.
pub fn pieces<'a>(input: &'a [u8], rng: &mut Rng) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (input, Vec::new());
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(length(rng).clamp(1, rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_is_found() {
        let found =
            catch_unwind(|| run("self", &[b"abc"], &[b"needle"], |input, _| assert!(!input.windows(6).any(|text| text == b"needle"))));
        assert!(found.is_err());
    }

    #[test]
    fn a_seed_makes_its_input_again() {
        let input = |seed| mutated(&[b"GET / HTTP/1.1\r\n\r\n"], &[b"chunked"], &mut Rng::with_seed(seed));
        assert!((0..100).all(|seed| input(seed) == input(seed)) && (0..100).any(|seed| input(seed) != input(seed + 1)));
    }

    #[test]
    fn pieces_are_the_whole() {
        let rng = &mut Rng::with_seed(7);
        assert_eq!(pieces(b"0123456789", rng).concat(), b"0123456789");
    }
}
