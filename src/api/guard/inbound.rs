//! What a client sends: first looked at closely, then left alone or repaired for good.
//!
//! ```text
//! preface ──> held until the first header block is whole ──> fine:     watched, bytes untouched, for good
//!    │                              │                  └───> repaired: every later header block rewritten
//!    └> no HTTP/2: untouched        └> broken, too large: watched; the HTTP/2 layer behind refuses it
//! ```
//!
//! Once blocks are rewritten, the decoder behind has an empty dynamic table while the client's is filled. If we then have
//! to give up, raw blocks follow: they either don't refer to older entries, and mean the same, or fail to decode. They
//! can't be misread, because entries are numbered from the newest.

use super::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, HEAD_BYTES, HEADERS, Head, PADDED, PRIORITY, Step, Walker,
};
use super::hpack::{BLOCK_MAX, Table};
use super::pings::Pings;
use bytes::BytesMut;

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Payload of the frames that we make; every receiver takes this much.
const FRAME_MAX: usize = 16 << 10;
/// Bytes of the priority in HEADERS.
const PRIORITY_BYTES: usize = 5;

/// The client's side of a connection.
#[derive(Debug)]
pub struct Inbound {
    mode: Mode,
    walker: Walker,
}

#[derive(Debug)]
enum Mode {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// Until the first header block is known to be fine.
    Repairing(Box<Repair>),
    /// Frames are followed, bytes untouched.
    Watching,
    /// Not HTTP/2, or ended.
    Opaque,
}

impl Default for Inbound {
    fn default() -> Inbound {
        Inbound { mode: Mode::Preface(0), walker: Walker::default() }
    }
}

impl Inbound {
    /// Whether bytes are passed on as they are, so that [`Inbound::watch`] may replace [`Inbound::filter`].
    pub fn is_transparent(&self) -> bool {
        matches!(self.mode, Mode::Watching | Mode::Opaque)
    }

    /// Takes note of bytes that are passed on as they are.
    pub fn watch(&mut self, data: &[u8], pings: &mut Pings) {
        if matches!(self.mode, Mode::Watching) {
            self.walker.heads(data, |head| pings.client_sent(head));
        }
    }

    /// Moves `data` to `out`, as far as it needs no more bytes to be judged.
    pub fn filter(&mut self, mut data: &[u8], out: &mut BytesMut, pings: &mut Pings) {
        if let Mode::Preface(have) = &mut self.mode {
            let expected = &PREFACE[*have..];
            let (piece, rest) = data.split_at(expected.len().min(data.len()));
            out.extend_from_slice(piece);
            *have += piece.len();
            data = rest;
            if !expected.starts_with(piece) {
                self.mode = Mode::Opaque;
            } else if *have == PREFACE.len() {
                self.mode = Mode::Repairing(Box::default());
            }
        }
        while let Mode::Repairing(repair) = &mut self.mode
            && let Some(step) = self.walker.step(&mut data)
        {
            let verdict = match step {
                Step::Head(head) => {
                    pings.client_sent(head);
                    repair.head(head, out)
                }
                Step::Payload { piece, last } => repair.payload(piece, last, out),
            };
            if verdict == Verdict::LeaveAlone {
                self.mode = Mode::Watching;
            }
        }
        if self.is_transparent() {
            out.extend_from_slice(data);
            self.watch(data, pings);
        }
    }

    /// Gives up what was held back, at the end of the client's bytes.
    pub fn release(&mut self, out: &mut BytesMut) {
        if let Mode::Repairing(repair) = &self.mode {
            out.extend_from_slice(&repair.held);
            out.extend_from_slice(self.walker.partial_head());
        }
        self.mode = Mode::Opaque;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// Everything so far is passed on; from here on nothing needs us.
    LeaveAlone,
}

/// A header block that is coming in.
#[derive(Debug)]
struct Block {
    first: Head,
    priority: Option<[u8; PRIORITY_BYTES]>,
    /// The frame that is coming in, and where its payload begins in what is held.
    frame: Head,
    payload_at: usize,
    fragments: Vec<u8>,
}

#[derive(Debug, Default)]
struct Repair {
    table: Table,
    /// A block was repaired: all later ones are rewritten.
    rewriting: bool,
    block: Option<Block>,
    /// The present block's frames as they came. At most [`BLOCK_MAX`] and the heads of its frames.
    held: Vec<u8>,
}

impl Repair {
    fn head(&mut self, head: Head, out: &mut BytesMut) -> Verdict {
        let in_order = match &mut self.block {
            None if head.kind() == HEADERS => {
                let fragments = Vec::new();
                self.block = Some(Block {
                    first: head,
                    priority: None,
                    frame: head,
                    payload_at: HEAD_BYTES,
                    fragments,
                });
                true
            }
            None if head.kind() == CONTINUATION => false,
            None => {
                out.extend_from_slice(head.bytes());
                return Verdict::GoOn;
            }
            Some(block) => {
                block.frame = head;
                block.payload_at = self.held.len() + HEAD_BYTES;
                head.kind() == CONTINUATION && head.stream() == block.first.stream()
            }
        };
        self.held.extend_from_slice(head.bytes());
        if in_order && self.held.len() + head.len() <= BLOCK_MAX { Verdict::GoOn } else { self.give_up(out) }
    }

    fn payload(&mut self, piece: &[u8], last: bool, out: &mut BytesMut) -> Verdict {
        let Some(block) = &mut self.block else {
            out.extend_from_slice(piece);
            return Verdict::GoOn;
        };
        self.held.extend_from_slice(piece);
        if !last {
            return Verdict::GoOn;
        }
        let payload = &self.held[block.payload_at..];
        let fragment =
            if block.frame.kind() == HEADERS { block.unwrap_headers(payload) } else { Some(payload) };
        let Some(fragment) = fragment else { return self.give_up(out) };
        block.fragments.extend_from_slice(fragment);
        if block.frame.has(END_HEADERS) { self.block_ends(out) } else { Verdict::GoOn }
    }

    fn block_ends(&mut self, out: &mut BytesMut) -> Verdict {
        let Some(block) = &self.block else { return Verdict::GoOn };
        let mut rewritten = Vec::with_capacity(2 * block.fragments.len());
        match self.table.rewrite(&block.fragments, &mut rewritten) {
            Ok(repaired) if repaired || self.rewriting => {
                block.put(&rewritten, out);
                self.rewriting = true;
                self.block = None;
                self.held.clear();
                Verdict::GoOn
            }
            Ok(_) | Err(_) => self.give_up(out),
        }
    }

    fn give_up(&mut self, out: &mut BytesMut) -> Verdict {
        out.extend_from_slice(&self.held);
        self.held.clear();
        Verdict::LeaveAlone
    }
}

impl Block {
    /// The fragment in the payload of HEADERS; keeps its priority. `None` if padding and priority do not fit.
    fn unwrap_headers<'a>(&mut self, mut payload: &'a [u8]) -> Option<&'a [u8]> {
        if self.first.has(PADDED) {
            let (padding, rest) = payload.split_first()?;
            payload = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.first.has(PRIORITY) {
            let (priority, rest) = payload.split_first_chunk()?;
            self.priority = Some(*priority);
            payload = rest;
        }
        Some(payload)
    }

    /// Writes `rewritten` as the payload of new frames, without padding.
    fn put(&self, rewritten: &[u8], out: &mut BytesMut) {
        let priority = self.priority.as_ref().map_or(&[][..], |priority| priority);
        let kept = self.first.flags() & (END_STREAM | PRIORITY);
        let (piece, mut rest) = rewritten.split_at(rewritten.len().min(FRAME_MAX - priority.len()));
        let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        let stream = self.first.stream();
        let head = Head::new(HEADERS, kept | end(rest), stream, priority.len() + piece.len());
        out.extend_from_slice(head.bytes());
        out.extend_from_slice(priority);
        out.extend_from_slice(piece);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(FRAME_MAX));
            rest = after;
            out.extend_from_slice(Head::new(CONTINUATION, end(rest), stream, piece.len()).bytes());
            out.extend_from_slice(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SETTINGS: u8 = 4;
    const BAD: &[u8] = b"\x83\x86\x84\x41\x15http://127.0.0.1:2379";
    const BAD_REPAIRED: &[u8] = b"\x83\x86\x84\x01\x0e127.0.0.1:2379";
    const GOOD: &[u8] = b"\x83\x86\x84\x41\x0e127.0.0.1:2379";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        [Head::new(kind, flags, stream, payload.len()).bytes(), payload].concat()
    }

    fn opening() -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
    }

    /// What comes out of `parts`, and of the end after them.
    fn pass<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut inbound, mut out) = (Inbound::default(), BytesMut::new());
        let mut pings = Pings::new(Duration::from_secs(5));
        for part in parts {
            if inbound.is_transparent() {
                inbound.watch(part, &mut pings);
                out.extend_from_slice(part);
            } else {
                inbound.filter(part, &mut out, &mut pings);
            }
        }
        inbound.release(&mut out);
        out.to_vec()
    }

    /// `frames` after the opening come out as `expected`, however they are cut.
    fn check(frames: &[&[u8]], expected: &[&[u8]]) {
        let (bytes, expected) =
            ([&opening(), &*frames.concat()].concat(), [&opening(), &*expected.concat()].concat());
        for cut in (0..=bytes.len()).step_by(bytes.len().div_ceil(1000)) {
            assert!(pass([&bytes[..cut], &bytes[cut..]]) == expected, "cut at {cut}");
        }
        assert!(pass(bytes.chunks(1)) == expected, "byte by byte");
    }

    fn unchanged(frames: &[&[u8]]) {
        check(frames, frames);
    }

    #[test]
    fn a_good_authority_is_left_alone() {
        let data = frame(0, END_STREAM, 1, &[7; 100]);
        // The second block is not looked at any more.
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, GOOD), &data, &frame(HEADERS, END_HEADERS, 3, BAD)]);
        // Nor is a block without authority.
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x84"), &data]);
        unchanged(&[
            &frame(HEADERS, 0, 1, &GOOD[..5]),
            &frame(CONTINUATION, END_HEADERS, 1, &GOOD[5..]),
            &data,
        ]);
    }

    #[test]
    fn a_bad_authority_is_repaired_and_all_blocks_rewritten() {
        let data = frame(0, END_STREAM, 1, &[7; 100]);
        check(
            &[
                &frame(HEADERS, END_HEADERS, 1, BAD),
                &data,
                &frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x83\x86\x84\xbe\x40\x01a\x01b"),
                &frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\xbe\x3f\x21\xbe"),
            ],
            &[
                &frame(HEADERS, END_HEADERS, 1, BAD_REPAIRED),
                &data,
                &frame(HEADERS, END_HEADERS | END_STREAM, 3, &[BAD_REPAIRED, b"\x00\x01a\x01b"].concat()),
                &frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x00\x01a\x01b\x00\x01a\x01b"),
            ],
        );
    }

    #[test]
    fn padding_goes_and_priority_stays() {
        let priority = [0, 0, 0, 0, 16];
        let padded = [&[4][..], BAD, &[0; 4]].concat();
        let both = [&[4][..], &priority, BAD, &[0; 4]].concat();
        check(
            &[
                &frame(HEADERS, END_HEADERS | PADDED, 1, &padded),
                &frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 3, &both),
                &frame(HEADERS, PADDED | PRIORITY | END_STREAM, 5, &both),
                &frame(CONTINUATION, 0, 5, &[]),
                &frame(CONTINUATION, END_HEADERS, 5, b"\x40\x01a\x01b"),
            ],
            &[
                &frame(HEADERS, END_HEADERS, 1, BAD_REPAIRED),
                &frame(HEADERS, END_HEADERS | PRIORITY, 3, &[&priority, BAD_REPAIRED].concat()),
                &frame(
                    HEADERS,
                    END_HEADERS | PRIORITY | END_STREAM,
                    5,
                    &[&priority, BAD_REPAIRED, b"\x00\x01a\x01b"].concat(),
                ),
            ],
        );
    }

    #[test]
    fn large_blocks_are_cut_into_frames() {
        let field = [&b"\x00\x01a\x7f\xa1\x9b\x01"[..], &[b'x'; 20_000]].concat();
        let (block, rewritten) = ([BAD, &field].concat(), [BAD_REPAIRED, &field].concat());
        check(
            &[
                &frame(HEADERS, 0, 1, &block[..16_000]),
                &frame(CONTINUATION, END_HEADERS, 1, &block[16_000..]),
            ],
            &[
                &frame(HEADERS, 0, 1, &rewritten[..FRAME_MAX]),
                &frame(CONTINUATION, END_HEADERS, 1, &rewritten[FRAME_MAX..]),
            ],
        );
    }

    #[test]
    fn what_is_broken_is_passed_on() {
        let data = frame(0, 0, 1, &[7; 100]);
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, b"\x80"), &data]);
        unchanged(&[&frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05abc"), &data]);
        unchanged(&[&frame(HEADERS, END_HEADERS | PADDED, 1, b""), &data]);
        unchanged(&[&frame(HEADERS, END_HEADERS | PRIORITY, 1, b"abc"), &data]);
        unchanged(&[&frame(HEADERS, 0, 1, BAD), &data]);
        unchanged(&[&frame(HEADERS, 0, 1, BAD), &frame(CONTINUATION, END_HEADERS, 3, b"")]);
        unchanged(&[&frame(CONTINUATION, END_HEADERS, 1, BAD), &data]);
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, &[0x84; BLOCK_MAX]), &data]);
        let endless = vec![frame(CONTINUATION, 0, 1, &[]); BLOCK_MAX / HEAD_BYTES].concat();
        unchanged(&[&frame(HEADERS, 0, 1, BAD), &endless, &data]);
    }

    #[test]
    fn what_is_cut_off_is_passed_on() {
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, BAD)[..20]]);
        unchanged(&[&frame(HEADERS, END_HEADERS, 1, BAD)[..5]]);
        unchanged(&[&frame(SETTINGS, 0, 0, &[0; 6])[..12]]);
    }

    proptest! {
        #[test]
        fn other_protocols_pass(bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 0..500_usize, preface in 0..24_usize) {
            let bytes = [&PREFACE[..preface], &bytes].concat();
            prop_assume!(!bytes.starts_with(PREFACE));
            let cut = cut.min(bytes.len());
            prop_assert_eq!(pass([&bytes[..cut], &bytes[cut..]]), bytes);
        }

        #[test]
        fn any_frames_are_survived(
            frames in proptest::collection::vec(
                (prop_oneof![Just(HEADERS), Just(CONTINUATION), any::<u8>()], any::<u8>(), 0..4_u32,
                 prop_oneof![Just(BAD.to_vec()), proptest::collection::vec(any::<u8>(), 0..50)]),
                0..10,
            ),
            chunk in 1..100_usize,
        ) {
            let frames = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload));
            let bytes: Vec<u8> = opening().into_iter().chain(frames).collect();
            prop_assert_eq!(pass(bytes.chunks(chunk)), pass([&*bytes]));
        }
    }
}
