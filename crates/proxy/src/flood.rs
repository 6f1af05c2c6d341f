//! How much a client of HTTP/2 may make us do without asking for anything: frames that cost and bring nothing are counted beside what
//! explains them.
//!
//! **Invariant**: pure. It gets the bytes of both directions in pieces of any size, and never holds or changes them.
//!
//! h2 bounds what an attack can make it keep, and itself ends floods of empty or tiny DATA, of CONTINUATION, of resets before a request
//! was looked at, and of streams that it must refuse. It does not bound what PING, SETTINGS, WINDOW_UPDATE, PRIORITY, unknown frames and
//! resets of running requests cost: a million of them in a second, one thread. Those are counted here (RFC 9113 §10.5).

use crate::frames::{self, Frames, Head};

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flood {
    Reset,
    Ping,
    Settings,
    WindowUpdate,
    /// Of both kinds (RFC 9113 §5.3.2, RFC 9218 §7.1).
    Priority,
    /// Unknown ones, and those that no client has a use for.
    Other,
}

impl Flood {
    pub(crate) const ALL: [Flood; 6] = [Flood::Reset, Flood::Ping, Flood::Settings, Flood::WindowUpdate, Flood::Priority, Flood::Other];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Flood::Reset => "reset",
            Flood::Ping => "ping",
            Flood::Settings => "settings",
            Flood::WindowUpdate => "window_update",
            Flood::Priority => "priority",
            Flood::Other => "other",
        }
    }

    fn of(kind: u8) -> Option<Flood> {
        match kind {
            // Requests and their bodies: h2's own limits, and those of streams.
            frames::DATA | frames::HEADERS | frames::CONTINUATION => None,
            frames::RST_STREAM => Some(Flood::Reset),
            frames::PING => Some(Flood::Ping),
            frames::SETTINGS => Some(Flood::Settings),
            frames::WINDOW_UPDATE => Some(Flood::WindowUpdate),
            frames::PRIORITY | frames::PRIORITY_UPDATE => Some(Flood::Priority),
            _ => Some(Flood::Other),
        }
    }

    /// Everything below costs about a microsecond a frame, and so a client at all limits at once takes less than one thousandth of a
    /// thread beyond what its requests explain.
    fn allowance(self) -> Allowance {
        const NONE: Allowance = Allowance { burst: 0, per_s: 0, per_stream: 0, per_answer: 0, per_data: 0, per_data_kib: 0 };
        match self {
            // All streams at once (200), twice, when a page is left or deadlines pass; and whatever is left of requests that are being
            // answered, as a client does that hedges. nghttp2 allows 1,000 and 33 a second, Sozu 100 a second, Netty 200 in 30 s.
            Flood::Reset => Allowance { burst: 500, per_s: 100, per_answer: 1, ..NONE },
            // Keep-alive comes in seconds. gRPC measures its bandwidth with one for a round trip that brought data, and so never with
            // more than came. Sozu allows 100 a second.
            Flood::Ping => Allowance { burst: 100, per_s: 10, per_data: 1, ..NONE },
            // One, an acknowledgement, and a new window now and then (gRPC, as its estimate grows). Sozu allows 50 a second.
            Flood::Settings => Allowance { burst: 50, per_s: 5, ..NONE },
            // Of the stream and the connection for each DATA frame, twice over, or for each KiB of it: nobody gives windows back in
            // smaller steps. Streams may begin with one. Envoy allows 20 for each DATA frame and 2 for each stream.
            Flood::WindowUpdate => Allowance { burst: 500, per_s: 10, per_stream: 4, per_data: 4, per_data_kib: 1, ..NONE },
            // Browsers build a tree of a few, and move a stream a few times. Envoy allows 100 for each stream.
            Flood::Priority => Allowance { burst: 500, per_s: 10, per_stream: 10, ..NONE },
            // Chromium greases each connection and request with one (RFC 9113 §5.5 wants them ignored).
            Flood::Other => Allowance { burst: 100, per_s: 10, per_stream: 4, ..NONE },
        }
    }
}

/// So many frames of a kind may come: at once, more with each second, and more for what explains them.
struct Allowance {
    burst: u32,
    per_s: u32,
    /// For each head that the client sent.
    per_stream: u32,
    /// For each head that it got.
    per_answer: u32,
    /// For each DATA frame that it got, and for each whole KiB in it.
    per_data: u32,
    per_data_kib: u32,
}

/// What was earned and not used lasts: windows are given back when they were used, a round trip or a slow reader later. This many cover
/// 16 MiB on their way in frames of 16 KiB.
const EARNED_MAX: u32 = 20_000;

#[derive(Debug, Clone, Copy)]
struct Account {
    /// In thousandths of a frame.
    level: u32,
    earned: u32,
}

impl Account {
    fn earn(&mut self, frames: u32) {
        self.earned = self.earned.saturating_add(frames).min(EARNED_MAX);
    }

    fn spend(&mut self) -> bool {
        if self.earned > 0 {
            self.earned -= 1;
        } else if self.level >= 1_000 {
            self.level -= 1_000;
        } else {
            return false;
        }
        true
    }
}

pub(crate) struct Guard {
    incoming: Frames,
    outgoing: Frames,
    has_spoken: bool,
    accounts: [Account; Flood::ALL.len()],
    now_ms: u64,
    /// The newest stream that the client has opened.
    last_stream: u32,
}

impl Guard {
    /// Of a connection that begins with the client's preface.
    pub(crate) fn new(now_ms: u64) -> Self {
        let full = |flood: Flood| Account { level: flood.allowance().burst * 1_000, earned: 0 };
        Self {
            incoming: Frames::after_preface(),
            outgoing: Frames::default(),
            has_spoken: false,
            accounts: Flood::ALL.map(full),
            now_ms,
            last_stream: 0,
        }
    }

    /// What the client sent: the number of frames that began in it. An error: too many of a kind.
    pub(crate) fn received(&mut self, bytes: &[u8], now_ms: u64) -> Result<u32, Flood> {
        self.refill(now_ms);
        let (mut begun, mut rest) = (0, bytes);
        while let Some(head) = self.incoming.next(&mut rest) {
            begun += 1;
            self.count(head)?;
        }
        Ok(begun)
    }

    /// What it was sent.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        self.has_spoken |= !bytes.is_empty();
        while let Some(head) = self.outgoing.next(&mut rest) {
            match head.kind {
                frames::HEADERS => self.earn(|allowed| allowed.per_answer),
                frames::DATA => self.earn(|allowed| allowed.per_data + allowed.per_data_kib * (head.length / 1024)),
                _ => {}
            }
        }
    }

    /// A frame of our own may go out now: the peer's settings are behind us, and no frame is half sent.
    pub(crate) fn may_speak(&self) -> bool {
        self.has_spoken && self.outgoing.is_between()
    }

    /// The last word to the client, if it can be understood now: not in the middle of a frame.
    pub(crate) fn farewell(&self) -> Option<[u8; frames::GO_AWAY_BYTES]> {
        self.outgoing.is_between().then(|| frames::go_away(self.last_stream, frames::ENHANCE_YOUR_CALM))
    }

    fn count(&mut self, head: Head) -> Result<(), Flood> {
        if head.kind == frames::HEADERS {
            self.last_stream = self.last_stream.max(head.stream);
            self.earn(|allowed| allowed.per_stream);
        }
        match Flood::of(head.kind) {
            Some(flood) if !self.accounts[flood as usize].spend() => Err(flood),
            _ => Ok(()),
        }
    }

    fn earn(&mut self, frames: impl Fn(&Allowance) -> u32) {
        for (account, flood) in self.accounts.iter_mut().zip(Flood::ALL) {
            account.earn(frames(&flood.allowance()));
        }
    }

    fn refill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.now_ms);
        if passed_ms == 0 {
            return;
        }
        self.now_ms = now_ms;
        for (account, flood) in self.accounts.iter_mut().zip(Flood::ALL) {
            let allowed = flood.allowance();
            let more = u64::from(allowed.per_s) * passed_ms;
            account.level = (u64::from(account.level) + more).min(u64::from(allowed.burst) * 1_000) as u32;
        }
    }
}

#[cfg(test)]
mod tests;
