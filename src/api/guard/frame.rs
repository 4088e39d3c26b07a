//! HTTP/2 frames as far as the guard must know them (RFC 9113, section 4): heads, and where frames begin and end.
//!
//! A [`Walker`] follows one direction of a connection, in pieces of any size. It keeps nothing but a partial head.

/// Bytes of a frame head.
pub const HEAD_BYTES: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

/// Flag of PING.
pub const ACK: u8 = 0x1;
/// Flag of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// Flag of HEADERS.
pub const PADDED: u8 = 0x8;
/// Flag of HEADERS.
pub const PRIORITY: u8 = 0x20;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head([u8; HEAD_BYTES]);

impl Head {
    /// Puts a head together; `len` is that of the payload, of which 24 bits count.
    pub fn new(kind: u8, flags: u8, stream: u32, len: usize) -> Head {
        let [_, a, b, c] = (len as u32).to_be_bytes();
        let [p, q, r, s] = stream.to_be_bytes();
        Head([a, b, c, kind, flags, p, q, r, s])
    }

    /// The head as it is on the wire.
    pub fn bytes(&self) -> &[u8; HEAD_BYTES] {
        &self.0
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]]) as usize
    }

    /// The frame's type.
    pub fn kind(&self) -> u8 {
        self.0[3]
    }

    /// The frame's flags.
    pub fn flags(&self) -> u8 {
        self.0[4]
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    /// The stream, without the reserved bit.
    pub fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[5], self.0[6], self.0[7], self.0[8]]) & (u32::MAX >> 1)
    }
}

/// What a walker comes across.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A frame begins.
    Head(Head),
    /// A piece of its payload, perhaps empty; `last` ends the frame. Each frame has a last piece.
    Payload { piece: &'a [u8], last: bool },
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub struct Walker {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// Bytes of payload to come; `None` between frames and inside a head.
    rest: Option<usize>,
}

impl Walker {
    /// The next step through `data`, which moves on; `None` when more bytes are needed.
    pub fn step<'a>(&mut self, data: &mut &'a [u8]) -> Option<Step<'a>> {
        if let Some(rest) = self.rest {
            if rest > 0 && data.is_empty() {
                return None;
            }
            let (piece, after) = data.split_at(rest.min(data.len()));
            *data = after;
            let last = piece.len() == rest;
            self.rest = if last { None } else { Some(rest - piece.len()) };
            return Some(Step::Payload { piece, last });
        }
        let (piece, after) = data.split_at((HEAD_BYTES - self.have).min(data.len()));
        *data = after;
        self.head[self.have..self.have + piece.len()].copy_from_slice(piece);
        self.have += piece.len();
        if self.have < HEAD_BYTES {
            return None;
        }
        self.have = 0;
        let head = Head(self.head);
        self.rest = Some(head.len());
        Some(Step::Head(head))
    }

    /// Walks through `data`, telling `see` each head.
    pub fn heads(&mut self, mut data: &[u8], mut see: impl FnMut(Head)) {
        while let Some(step) = self.step(&mut data) {
            match step {
                Step::Head(head) => see(head),
                Step::Payload { .. } => {}
            }
        }
    }

    /// The bytes of a head that is not whole.
    pub fn partial_head(&self) -> &[u8] {
        &self.head[..self.have]
    }

    /// Bytes that surely belong to the present frame, or `None` between two frames.
    /// Inside a head these are the bytes of the head: how long the payload is, is not known yet.
    pub fn unfinished(&self) -> Option<usize> {
        match (self.rest, self.have) {
            (Some(rest), _) => Some(rest),
            (None, 0) => None,
            (None, have) => Some(HEAD_BYTES - have),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let frames: [(Head, &[u8]); 4] = [
            (Head::new(HEADERS, END_HEADERS, 1, 3), b"abc"),
            (Head::new(4, 0, 0, 0), b""),
            (Head::new(DATA, END_STREAM, 1, 300), &[7; 300]),
            (Head::new(PING, 0, 0, 8), b"12345678"),
        ];
        frames.iter().flat_map(|(head, payload)| [head.bytes(), *payload].concat()).collect()
    }

    #[test]
    fn finds_frames_however_they_are_cut() {
        let bytes = sample();
        for cut in 0..=bytes.len() {
            let (mut walker, mut heads) = (Walker::default(), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                walker.heads(part, |head| heads.push((head.kind(), head.stream(), head.len())));
            }
            assert_eq!(heads, [(HEADERS, 1, 3), (4, 0, 0), (DATA, 1, 300), (PING, 0, 8)], "cut at {cut}");
            assert_eq!(walker.unfinished(), None);
        }
    }

    #[test]
    fn knows_what_is_unfinished() {
        let mut walker = Walker::default();
        let bytes = sample();
        walker.heads(&bytes[..4], |_| {});
        assert_eq!((walker.unfinished(), walker.partial_head()), (Some(5), &bytes[..4]));
        walker.heads(&bytes[4..10], |_| {});
        assert_eq!((walker.unfinished(), walker.partial_head()), (Some(2), &[][..]));
        walker.heads(&bytes[10..12], |_| {});
        assert_eq!(walker.unfinished(), None);
    }
}
