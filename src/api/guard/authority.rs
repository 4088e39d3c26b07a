//! What becomes of an `:authority` that is none. etcd's servers ignore it, so anything well-formed will do.

use http::uri::Authority;

const HARMLESS: &[u8] = b"localhost";

/// What to put in the place of `value`; `None` if it is fine.
pub fn repair(value: &[u8]) -> Option<&[u8]> {
    if is_fine(value) {
        return None;
    }
    // A whole URL: clients before etcd 3.5 pass on the endpoint as they were given it.
    let after_scheme = value.windows(3).position(|w| w == b"://").map_or(value, |at| &value[at + 3..]);
    let host = after_scheme.split(|byte| *byte == b'/').next().unwrap_or_default();
    Some(if is_fine(host) { host } else { HARMLESS })
}

fn is_fine(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        let check = |value: &str, expected: Option<&str>| {
            let repaired = repair(value.as_bytes()).map(|bytes| std::str::from_utf8(bytes).expect("text"));
            assert_eq!(repaired, expected, "{value}");
            assert!(repaired.is_none_or(|repaired| is_fine(repaired.as_bytes())));
        };
        for fine in ["127.0.0.1:2379", "localhost", "etcd-0.etcd:2379", "[::1]:2379", "#initially=[x]"] {
            check(fine, if fine.starts_with('#') { Some("localhost") } else { None });
        }
        check("http://127.0.0.1:2379", Some("127.0.0.1:2379"));
        check("https://[::1]:2379/", Some("[::1]:2379"));
        check("unix:///run/etcd.sock", Some("localhost"));
        check("unix://localhost:m0", Some("localhost:m0"));
        check("%2Frun%2Fetcd.sock", Some("localhost"));
        check("etcd-endpoints://0xc000/127.0.0.1:2379", Some("0xc000"));
        check("", Some("localhost"));
        check("a b", Some("localhost"));
    }
}
