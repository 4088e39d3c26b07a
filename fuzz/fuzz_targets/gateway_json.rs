//! JSON of the gateway: bodies become messages, and come back out as JSON that means the same. Where objects of a stream
//! end must not depend on how the bytes are cut.
#![no_main]

use std::sync::OnceLock;

use kvist::api::gateway::json::{self, Split, Splitter};
use libfuzzer_sys::fuzz_target;
use prost_reflect::{DescriptorPool, MessageDescriptor};

const MESSAGES: [&str; 6] = [
    "etcdserverpb.TxnRequest",
    "etcdserverpb.RangeRequest",
    "etcdserverpb.WatchRequest",
    "etcdserverpb.LeaseGrantRequest",
    "etcdserverpb.AlarmRequest",
    "etcdserverpb.AuthRoleGrantPermissionRequest",
];
/// Flag and length in front of a gRPC message.
const PREFIX: usize = 5;

fuzz_target!(|input: (u8, u8, Vec<u8>)| {
    let (message, step, bytes) = input;
    let message = &messages()[usize::from(message) % MESSAGES.len()];
    if let Ok(frame) = json::to_frame(message, &bytes) {
        let mut text = Vec::new();
        json::write(message, frame.slice(PREFIX..), &mut text).expect("what was read can be written");
        assert_eq!(json::to_frame(message, &text).expect("what was written can be read"), frame);
    }
    let _ = json::write(message, bytes.clone().into(), &mut Vec::new());
    assert_eq!(split(&bytes, usize::from(step).max(1)), split(&bytes, bytes.len().max(1)));
});

fn messages() -> &'static [MessageDescriptor] {
    static MESSAGE: OnceLock<Vec<MessageDescriptor>> = OnceLock::new();
    MESSAGE.get_or_init(|| {
        let pool = DescriptorPool::decode(kvist::pb::DESCRIPTORS).expect("descriptors");
        MESSAGES.iter().map(|name| pool.get_message_by_name(name).expect("a message")).collect()
    })
}

/// Where objects end, when the bytes come in pieces of `step`.
fn split(bytes: &[u8], step: usize) -> Vec<usize> {
    let (mut splitter, mut buffer, mut ends, mut taken) = (Splitter::default(), Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match splitter.next(&buffer) {
                Split::Object(end) => {
                    buffer.drain(..end);
                    taken += end;
                    ends.push(taken);
                }
                Split::Incomplete => break,
                Split::Foreign => return ends,
            }
        }
    }
    ends
}
