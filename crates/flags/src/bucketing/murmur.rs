//! MurmurHash3 x86_32 with seed 0 (Austin Appleby, SMHasher, public domain), in pieces.
//!
//! **Invariant:** pieces give what the whole gives. Not here: which bytes.

/// A hash under way; copied where many continue from the same beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Murmur {
    hash: u32,
    /// Bytes that do not fill a block yet, the first lowest.
    tail: u32,
    length: u32,
}

fn mixed(block: u32) -> u32 {
    block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

impl Murmur {
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        while !self.length.is_multiple_of(4)
            && let [first, rest @ ..] = bytes
        {
            self.push(*first);
            bytes = rest;
        }
        let (blocks, tail) = bytes.as_chunks::<4>();
        for block in blocks {
            self.block(u32::from_le_bytes(*block));
        }
        self.length = self.length.wrapping_add(u32::try_from(blocks.len() * 4).unwrap_or(u32::MAX));
        for byte in tail {
            self.push(*byte);
        }
    }

    fn push(&mut self, byte: u8) {
        self.tail |= u32::from(byte) << (8 * (self.length % 4));
        self.length = self.length.wrapping_add(1);
        if self.length.is_multiple_of(4) {
            self.block(self.tail);
            self.tail = 0;
        }
    }

    fn block(&mut self, block: u32) {
        self.hash = (self.hash ^ mixed(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }

    pub(crate) fn finish(self) -> u32 {
        // An empty tail mixes to 0.
        let mut hash = self.hash ^ mixed(self.tail) ^ self.length;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

/// Of all bytes at once.
pub(crate) fn murmur(bytes: &[u8]) -> u32 {
    let mut murmur = Murmur::default();
    murmur.write(bytes);
    murmur.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        for (text, hash) in [
            ("", 0),
            ("hello", 0x248b_fa47),
            ("foo", 0xf6a5_c420),
            ("new-scoring-algorithmuser-1", 102_794_031),
            ("ü", 2_017_519_274),
            ("日本", 3_302_619_458),
            ("😀", 3_199_479_546),
        ] {
            assert_eq!(murmur(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let text = b"The quick brown fox jumps over the lazy dog";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut pieces = Murmur::default();
                pieces.write(&text[..first]);
                pieces.write(&text[first..second]);
                pieces.write(&text[second..]);
                assert_eq!(pieces.finish(), murmur(text));
            }
        }
    }
}
