//! Heads of HTTP/2's frames in a stream of bytes (RFC 9113 §4.1), found without holding a byte of what is between them.

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PING: u8 = 0x6;
const GO_AWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;
/// RFC 9218 §7.1.
pub(crate) const PRIORITY_UPDATE: u8 = 0x10;

/// RFC 9113 §7.
const NO_ERROR: u32 = 0;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

const HEAD_BYTES: usize = 9;
const PREFACE_BYTES: u32 = 24;
/// RFC 9113 §6.8, without debug data.
pub(crate) const GO_AWAY_BYTES: usize = HEAD_BYTES + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of what follows, in bytes.
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) stream: u32,
}

impl Head {
    fn of(bytes: [u8; HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, _flags, s0, s1, s2, s3] = bytes;
        Self { length: u32::from_be_bytes([0, l0, l1, l2]), kind, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }
    }
}

/// Where in the stream we are.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// So many bytes come before the next head.
    left: u32,
    head: [u8; HEAD_BYTES],
    /// So many bytes of the next head are here.
    have: usize,
}

impl Frames {
    pub(crate) fn after_preface() -> Self {
        Self { left: PREFACE_BYTES, ..Self::default() }
    }

    /// The next head that is complete with these bytes, which are taken up to its end; `None`: all of them are.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let skipped = bytes.len().min(self.left as usize);
        self.left -= skipped as u32;
        let (taken, rest) = bytes[skipped..].split_at((bytes.len() - skipped).min(HEAD_BYTES - self.have));
        *bytes = rest;
        self.head[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        if self.have < HEAD_BYTES {
            return None;
        }
        let head = Head::of(self.head);
        (self.left, self.have) = (head.length, 0);
        Some(head)
    }

    /// All frames that have begun have ended.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0 && self.have == 0
    }
}

/// Nothing new is to be begun, and what is on its way is served (RFC 9113 §6.8): the largest stream there can be.
pub(crate) const NOTICE: [u8; GO_AWAY_BYTES] = go_away(0x7fff_ffff, NO_ERROR);

/// The connection ends; streams beyond this one were not looked at.
pub(crate) const fn go_away(last_stream: u32, error: u32) -> [u8; GO_AWAY_BYTES] {
    let ([l0, l1, l2, l3], [e0, e1, e2, e3]) = (last_stream.to_be_bytes(), error.to_be_bytes());
    [0, 0, (GO_AWAY_BYTES - HEAD_BYTES) as u8, GO_AWAY, 0, 0, 0, 0, 0, l0, l1, l2, l3, e0, e1, e2, e3]
}
