//! Which entries of a log count, and what requests in it mean.

use super::super::wal::wal_test::{Writer, entry, metadata};
use super::*;
use crate::auth::Change;
use crate::engine::Origin;
use crate::engine::command::Command;
use proptest::prelude::*;

fn survey_of(writer: &Writer, after: u64) -> Result<Survey> {
    survey(&Wal::open(writer.dir(), after)?, after)
}

#[test]
fn entries_that_were_replaced_do_not_count() {
    let mut writer = Writer::new();
    // Entries 3 and 4 of term 2 were never committed: the leader of term 3 put others in their places.
    writer.file(0, &[metadata(), entry(1, 1, b""), entry(1, 2, b""), entry(2, 3, b""), entry(2, 4, b"")]);
    writer.file(5, &[metadata(), entry(3, 3, b""), entry(3, 4, b""), entry(3, 5, b"")]);
    let survey = survey_of(&writer, 1).unwrap();
    assert_eq!((survey.terms.clone(), survey.metadata.member()), (vec![1, 3, 3, 3], 7));
    assert_eq!(survey_of(&writer, 5).unwrap().missing(), 0);
}

#[test]
fn a_log_that_does_not_fit_is_refused() {
    let mut writer = Writer::new();
    writer.file(0, &[metadata(), entry(1, 1, b""), entry(1, 2, b""), entry(1, 4, b"")]);
    let error = survey_of(&writer, 0).unwrap_err().to_string();
    assert!(error.ends_with("entry 4 follows, and 3 should"), "{error}");
    let error = survey_of(&writer, 9).unwrap_err().to_string();
    assert!(error.contains("the log ends at entry 4, but the database has entry 9"), "{error}");
    let mut writer = Writer::new();
    writer.file(0, &[entry(1, 1, b"")]);
    assert!(survey_of(&writer, 0).unwrap_err().to_string().ends_with("does not say whose it is"));
}

#[test]
fn members_change_with_the_log() {
    let change = |kind: i32, id: u64, json: &str| ConfChange {
        kind: Some(kind),
        member: Some(id),
        context: Some(json.as_bytes().to_vec()),
    };
    let mut members = BTreeMap::new();
    for change in [
        change(0, 7, r#"{"id":7,"peerURLs":["http://a:1"],"name":"a"}"#),
        change(3, 8, r#"{"id":8,"peerURLs":["http://b:1"],"isLearner":true,"isPromote":false}"#),
        change(2, 7, r#"{"id":7,"peerURLs":["http://a:2"]}"#),
        change(0, 8, r#"{"id":8,"peerURLs":["http://b:1"],"isPromote":true}"#),
    ] {
        change_members(&change.encode_to_vec(), &mut members).unwrap();
    }
    assert_eq!((members[&7].name.as_str(), &members[&7].peer_urls[0][..]), ("a", "http://a:2"));
    assert!(!members[&8].is_learner);
    change_members(&change(1, 8, "").encode_to_vec(), &mut members).unwrap();
    assert_eq!(members.len(), 1);
    assert!(change_members(&change(9, 8, "").encode_to_vec(), &mut members).is_none());
}

#[test]
fn requests_of_old_stores_and_leaders_change_nothing() {
    // What etcd 3.4 writes when a member makes itself known: a request to the old store.
    let old = [&b"\x08\x01\x12\x03PUT\x1a\x16"[..], b"/0/members/7/attributes", b"\x22\x02{}"].concat();
    for data in [&b""[..], &old] {
        let request = Request::read(data);
        assert!(request.is_none_or(|request| request.into_command().is_none()));
    }
    assert!(Request::read(&[0xff, 0xff]).is_none(), "no request at all");
}

#[test]
fn users_come_with_their_hashes_and_callers_with_their_names() {
    // auth_user_add (field 1100) with name, hashed password; header (field 100) with user and auth revision.
    let add = [&b"\x0a\x01u\x22\x04aGFz"[..]].concat();
    let header = b"\x12\x04root\x18\x05";
    let mut data = vec![0xa2, 0x06, header.len() as u8];
    data.extend_from_slice(header);
    data.extend_from_slice(&[0xe2, 0x44, add.len() as u8]);
    data.extend_from_slice(&add);
    let (origin, command) = Request::read(&data).unwrap().into_command().unwrap();
    let Origin::Client(Some(caller)) = origin else { panic!("{origin:?}") };
    assert_eq!((&*caller.user, caller.revision), ("root", 5));
    let expected = Change::UserAdd { name: "u".into(), password: b"has".to_vec(), no_password: false };
    assert_eq!(command, Command::Auth(expected));
}

proptest! {
    #[test]
    fn foreign_bytes_do_not_panic(data: Vec<u8>) {
        let _ = Request::read(&data).and_then(Request::into_command);
        let _ = change_members(&data, &mut BTreeMap::new());
    }
}
