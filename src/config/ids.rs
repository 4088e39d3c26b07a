//! Ids of members and of the cluster, computed as etcd does, so that a member keeps its identity when it is replaced
//! by kvist and every member of a bootstrapping cluster computes the same ones (contract row C-2). Pure.
//! Called at bootstrap, and for members added at run time.

use super::url::EndpointUrl;
use sha1::{Digest, Sha1};

/// Id of a member that is there from the start: its peer URLs, sorted, and the cluster token.
pub fn member_id(peer_urls: &[EndpointUrl], token: &str) -> u64 {
    let mut texts: Vec<String> = peer_urls.iter().map(ToString::to_string).collect();
    texts.sort();
    let mut hash = Sha1::new();
    for text in texts {
        hash.update(text);
    }
    hash.update(token);
    first_eight(hash)
}

/// Id of a member that is added at run time: the time (Unix seconds) stands where the token would.
pub fn added_member_id(peer_urls: &[EndpointUrl], unix_secs: u64) -> u64 {
    member_id(peer_urls, &unix_secs.to_string())
}

/// Id of the cluster with these members, whose order does not matter.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    hash.finalize().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<EndpointUrl> {
        EndpointUrl::parse_list(text).unwrap()
    }

    #[test]
    fn ids_of_single_members_are_those_of_etcd() {
        // The default member; and one seen in the log of etcd 3.7.1 with its peer URL on 127.0.0.1:43800.
        for (peer, member, cluster) in [
            ("http://localhost:2380", 0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32),
            ("http://127.0.0.1:43800", 0xc3b4_a3c9_c599_c3f3, 0x2231_5138_02a7_718d),
        ] {
            let id = member_id(&urls(peer), "etcd-cluster");
            assert_eq!((id, cluster_id(&[id])), (member, cluster), "{peer}");
        }
    }

    #[test]
    fn order_does_not_matter_but_token_and_time_do() {
        assert_eq!(
            member_id(&urls("http://a:1,http://b:1"), "t"),
            member_id(&urls("http://b:1,http://a:1"), "t")
        );
        assert_ne!(member_id(&urls("http://a:1"), "t"), member_id(&urls("http://a:1"), "u"));
        assert_ne!(added_member_id(&urls("http://a:1"), 1), added_member_id(&urls("http://a:1"), 2));
        assert_eq!(cluster_id(&[1, 2, 3]), cluster_id(&[3, 1, 2]));
    }
}
