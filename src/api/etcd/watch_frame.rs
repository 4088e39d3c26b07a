//! Responses of the Watch service as bytes: events that were encoded for all watchers of a group, behind a head of each
//! response's own, or a whole message that many streams share. Made and gathered by `watch`.

use crate::api::grpc::body;
use crate::api::grpc::gathered::Gathered;
use crate::pb::etcdserverpb::WatchResponse;
use bytes::Bytes;
use prost::Message;
use tonic::Status;

/// One response.
pub enum Frame {
    /// A head without events, and the events as they are encoded.
    Parts(WatchResponse, Bytes),
    /// A gRPC message as it is sent.
    Whole(Bytes),
}

impl Frame {
    /// Adds it to what goes into one frame of the body.
    pub fn add_to(self, gathered: &mut Gathered) -> Result<(), Status> {
        match self {
            Frame::Whole(message) => gathered.add(message),
            Frame::Parts(head, events) => put(&head, &events, gathered.further())?,
        }
        Ok(())
    }
}

/// Appends a response as a gRPC message.
fn put(head: &WatchResponse, events: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let len = head.encoded_len() + events.len();
    out.reserve(body::PREFIX + len);
    out.extend_from_slice(&body::prefix(len as u64)?);
    head.encode(out).expect("a vector grows");
    out.extend_from_slice(events);
    Ok(())
}

/// A response as a gRPC message.
pub fn message(head: &WatchResponse, events: &[u8]) -> Result<Bytes, Status> {
    let mut out = Vec::new();
    put(head, events, &mut out)?;
    Ok(out.into())
}

/// Parts of a response of at most `limit` bytes of events each, if single events allow; last part first (W-15).
pub fn split(head: &WatchResponse, bytes: &Bytes, ends: &[usize], limit: usize) -> Vec<Frame> {
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for &next in ends {
        if next - start > limit && end > start {
            parts.push(bytes.slice(start..end));
            start = end;
        }
        end = next;
    }
    parts.push(bytes.slice(start..end));
    let last = parts.len() - 1;
    let frame = |(i, events)| Frame::Parts(WatchResponse { fragment: i < last, ..head.clone() }, events);
    let mut frames: Vec<Frame> = parts.into_iter().enumerate().map(frame).collect();
    frames.reverse();
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut bytes: &[u8]) -> Vec<WatchResponse> {
        let mut found = Vec::new();
        while let Some((prefix, rest)) = bytes.split_first_chunk::<5>() {
            let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            found.push(WatchResponse::decode(&rest[..len]).unwrap());
            bytes = &rest[len..];
        }
        found
    }

    #[test]
    fn what_is_gathered_keeps_its_order_and_one_message_is_not_copied() {
        let head = |watch_id| WatchResponse { watch_id, ..WatchResponse::default() };
        let shared = message(&head(1), &[]).unwrap();
        let whole = || Frame::Whole(shared.clone());
        let parts = || Frame::Parts(head(2), Bytes::new());
        let cases: [(Vec<Frame>, &[i64]); 5] = [
            (vec![whole()], &[1]),
            (vec![parts()], &[2]),
            (vec![whole(), whole(), parts()], &[1, 1, 2]),
            (vec![whole(), parts(), whole()], &[1, 2, 1]),
            (vec![parts(), whole()], &[2, 1]),
        ];
        for (frames, ids) in cases {
            let mut gathered = Gathered::default();
            frames.into_iter().for_each(|frame| frame.add_to(&mut gathered).unwrap());
            let len = gathered.len();
            let bytes = gathered.into_bytes();
            assert_eq!(bytes.len(), len);
            assert_eq!(decode(&bytes).iter().map(|response| response.watch_id).collect::<Vec<_>>(), ids);
            if ids == [1] {
                assert_eq!(bytes.as_ptr(), shared.as_ptr());
            }
        }
    }
}
