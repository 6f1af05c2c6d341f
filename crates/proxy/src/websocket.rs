//! WebSocket as far as a tunnel must know it: where frames end, so that a close frame can be put between two (RFC 6455 §5).
//!
//! Pure: bytes in, positions out. Not here: what is in a frame, masks but our own, extensions (they do not move the ends).

/// Status 1012, "service restart": the client may come back, and whoever wrote it knows that it should wait a little
/// (IANA's registry of WebSocket close codes). From a server, hence without a mask.
pub(crate) const CLOSE_FOR_CLIENT: [u8; 4] = [FIN | OPCODE_CLOSE, 2, 0x03, 0xF4];
/// Status 1001, "going away", with a mask of zeros, as from a client (RFC 6455 §5.3 wants one; nobody reads it on the way).
pub(crate) const CLOSE_FOR_TARGET: [u8; 8] = [FIN | OPCODE_CLOSE, MASKED | 2, 0, 0, 0, 0, 0x03, 0xE9];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0F;
const OPCODE_CLOSE: u8 = 0x8;
/// Two bytes, eight of length, four of mask.
const HEAD_BYTES_MAX: usize = 14;

/// Follows the frames of one direction.
#[derive(Default)]
pub(crate) struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of the head that have come.
    head_length: usize,
    /// Of the frame that is under way, when its head is whole.
    payload_left: u64,
    /// A close frame has passed, whole: nothing follows it.
    closed: bool,
}

impl Frames {
    /// Nothing of a frame is under way.
    pub(crate) fn is_between(&self) -> bool {
        self.head_length == 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// All of these bytes pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass_one(bytes)..];
        }
    }

    /// The bytes up to the end of the frame that is under way, or begins here, pass; returns how many these are.
    pub(crate) fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.has_head() {
            self.head[self.head_length] = bytes[passed];
            self.head_length += 1;
            passed += 1;
            if self.has_head() {
                self.payload_left = self.payload_length();
            }
        }
        if self.has_head() {
            let rest = u64::try_from(bytes.len() - passed).unwrap_or(u64::MAX).min(self.payload_left);
            self.payload_left -= rest;
            passed += rest as usize;
            if self.payload_left == 0 {
                self.closed |= self.head[0] & OPCODE == OPCODE_CLOSE;
                self.head_length = 0;
            }
        }
        passed
    }

    fn has_head(&self) -> bool {
        self.head_length >= 2 && self.head_length == 2 + self.length_bytes() + if self.head[1] & MASKED == 0 { 0 } else { 4 }
    }

    /// Of the extended length.
    fn length_bytes(&self) -> usize {
        match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.length_bytes() {
            0 => u64::from(self.head[1] & !MASKED),
            bytes => self.head[2..2 + bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mut frame = vec![FIN | opcode];
        let mask = if masked { MASKED } else { 0 };
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![7; if masked { 4 } else { 0 } + payload]);
        frame
    }

    #[test]
    fn ours_are_whole_close_frames() {
        for close in [&CLOSE_FOR_CLIENT[..], &CLOSE_FOR_TARGET] {
            let mut frames = Frames::default();
            assert_eq!(frames.pass_one(close), close.len());
            assert!(frames.is_between() && frames.is_closed());
        }
        assert_eq!(u16::from_be_bytes([CLOSE_FOR_CLIENT[2], CLOSE_FOR_CLIENT[3]]), 1012);
        assert_eq!(u16::from_be_bytes([CLOSE_FOR_TARGET[6], CLOSE_FOR_TARGET[7]]), 1001);
    }

    #[test]
    fn a_length_beyond_all_bytes_has_no_end() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        frames.pass(&[0; 1000]);
        assert!(!frames.is_between() && !frames.is_closed());
    }

    proptest! {
        /// However the bytes are cut, the ends of frames are found, and a close frame is seen when its last byte has passed.
        #[test]
        fn ends_are_found_however_the_bytes_come(
            sizes in prop::collection::vec((0_u8..8, any::<bool>(), prop_oneof![0_usize..300, 65_000..66_000_usize]), 0..6),
            cut in prop::collection::vec(1_usize..5_000, 1..40),
        ) {
            let mut bytes = Vec::new();
            let mut ends = Vec::new();
            for (opcode, masked, size) in sizes {
                bytes.extend(frame(opcode, masked, size));
                ends.push(bytes.len());
            }
            bytes.extend(frame(OPCODE_CLOSE, true, 2));
            let mut frames = Frames::default();
            let (mut found, mut at) = (Vec::new(), 0);
            let mut cuts = cut.iter().cycle();
            while at < bytes.len() {
                let end = bytes.len().min(at + cuts.next().expect("cycles"));
                while at < end {
                    prop_assert!(!frames.is_closed());
                    at += frames.pass_one(&bytes[at..end]);
                    if frames.is_between() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found.pop(), Some(bytes.len()));
            prop_assert!(frames.is_closed());
            prop_assert_eq!(found, ends);
        }
    }
}
