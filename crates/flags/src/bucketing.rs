//! Which users fall where: the bytes that `fractional` hashes.
//!
//! **Invariant:** the same flag, user and generation give the same hash on every machine. Not here: weights (`logic::fractional`).

pub(crate) mod cbor;
pub(crate) mod murmur;

use serde::{Deserialize, Serialize};

use murmur::Murmur;

/// The generation of `fractional`. Both hash with MurmurHash3 x86_32, seed 0, and take `hash * total weight >> 32` as the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucketing {
    /// The text itself, UTF-8: flagd servers of today. The JavaScript core too, as long as the text is ASCII.
    #[default]
    V2,
    /// Deterministic CBOR (RFC 8949 §4.2.1) of any value: the Python core from 2.0.0, Rust's provider from 0.3.0.
    V3,
}

impl Bucketing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// The hash of `flag_key` and nothing yet; [`Self::user`] adds the user. Made once per rule.
    pub(crate) fn flag(self, flag_key: &str) -> Murmur {
        let mut murmur = Murmur::default();
        match self {
            Self::V2 => murmur.write(flag_key.as_bytes()),
            Self::V3 => {
                cbor::head(cbor::LIST, 2, &mut murmur);
                cbor::text(flag_key, &mut murmur);
            }
        }
        murmur
    }

    /// Where `targeting_key` falls for the flag that `flag` was made of.
    pub(crate) fn user(self, mut flag: Murmur, targeting_key: &str) -> u32 {
        match self {
            Self::V2 => flag.write(targeting_key.as_bytes()),
            Self::V3 => cbor::text(targeting_key, &mut flag),
        }
        flag.finish()
    }
}
