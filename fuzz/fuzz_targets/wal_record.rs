//! Records of the raft log. The salt comes from the input, and the input is also tried with its checksums repaired,
//! because random bytes never pass them.
#![no_main]

use kvist::raft::wal::{HEADER_BYTES, Record, decode, decode_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, Vec<u8>)| {
    let (salt, mut bytes) = input;
    check(&bytes, salt);
    if let Some((header, payload)) = bytes.split_at_mut_checked(HEADER_BYTES) {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let payload = &payload[..len.min(payload.len())];
        header[4..8].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &header[4..]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        check(&bytes, salt);
    }
});

fn check(bytes: &[u8], salt: u32) {
    let header = decode_header(bytes, salt);
    if let Ok(Record { header: of_record, payload }) = decode(bytes, salt) {
        assert_eq!(header, Ok(of_record));
        assert_eq!(payload.len(), of_record.payload_len as usize);
        assert!(of_record.record_bytes() >= (HEADER_BYTES + payload.len()) as u64);
    }
}
