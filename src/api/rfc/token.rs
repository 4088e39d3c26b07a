//! Consistent tokens: the index that a read was made at, for further reads at the same one. Clients keep them as they
//! are. A token pins nothing; it lives until its index is compacted.
//!
//! Layout: version (1 byte), cluster id, index (8 bytes each), CRC-32C of what is before (4 bytes), all big endian.

use bytes::Bytes;

const VERSION: u8 = 1;
const CRC_AT: usize = 17;
const LEN: usize = CRC_AT + 4;

/// The token of an index.
pub fn encode(cluster: u64, index: i64) -> Bytes {
    let mut token = [VERSION; LEN];
    token[1..9].copy_from_slice(&cluster.to_be_bytes());
    token[9..CRC_AT].copy_from_slice(&index.to_be_bytes());
    let crc = crc32c::crc32c(&token[..CRC_AT]);
    token[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
    Bytes::copy_from_slice(&token)
}

/// The index of a token; `None` if it is none of this cluster's.
pub fn decode(token: &[u8], cluster: u64) -> Option<i64> {
    let token: &[u8; LEN] = token.try_into().ok()?;
    let (content, crc) = token.split_at(CRC_AT);
    let (head, index) = content.split_at(9);
    let is_ours = head[0] == VERSION
        && head[1..] == cluster.to_be_bytes()
        && crc == crc32c::crc32c(content).to_be_bytes();
    let index = i64::from_be_bytes(index.try_into().ok()?);
    (is_ours && index > 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_a_token() {
        let token = encode(0x1000, 258);
        assert_eq!(token[..CRC_AT], [1, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    proptest! {
        #[test]
        fn a_token_is_good_in_its_cluster_only(cluster: u64, other: u64, index in 1i64..) {
            let token = encode(cluster, index);
            prop_assert_eq!(decode(&token, cluster), Some(index));
            prop_assert_eq!(decode(&token, other).is_some(), other == cluster);
        }

        #[test]
        fn a_token_that_was_changed_is_none(index in 1i64.., at in 0..LEN, flip in 1u8..) {
            let mut token = encode(7, index).to_vec();
            token[at] ^= flip;
            prop_assert_eq!(decode(&token, 7), None);
            prop_assert_eq!(decode(&token[1..], 7), None);
        }

        #[test]
        fn foreign_bytes_are_no_token(bytes: Vec<u8>, index in ..1i64) {
            prop_assert_eq!(decode(&bytes, 7), None);
            prop_assert_eq!(decode(&encode(7, index), 7), None);
        }
    }
}
