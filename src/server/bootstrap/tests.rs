//! First starts, with members that are small HTTP servers.

use super::*;
use crate::config::args::{Command, parse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const KVIST: &str = "X-Kvist-Version: 0\r\n";

/// Serves at a free port after a while, as a member of cluster 0xab that has these headers and knows these members, where
/// SELF stands for its own URL. Returns the URL.
async fn running(headers: &str, members: &str, after: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}");
    let body = members.replace("SELF", &url);
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: ab\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    drop(listener);
    let serve = async move {
        sleep(after).await;
        let listener = TcpListener::bind(address).await.unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let len = stream.read(&mut request).await.unwrap();
            assert!(request[..len].starts_with(b"GET /members HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    tokio::spawn(serve);
    url
}

/// The flags of member `b` at port 1, and of `a` elsewhere.
fn config(dir: &std::path::Path, state: &str, a: &str) -> Config {
    let words = [
        "--name=b".to_owned(),
        format!("--data-dir={}", dir.display()),
        "--initial-advertise-peer-urls=http://127.0.0.1:1".into(),
        format!("--initial-cluster=a={a},b=http://127.0.0.1:1"),
        format!("--initial-cluster-state={state}"),
    ];
    let Ok(Command::Serve(settings)) = parse(words.map(Into::into)) else { panic!("flags of a server") };
    let config = settings.verify().1.unwrap();
    config.check_bootstrap().unwrap();
    config
}

#[tokio::test]
async fn a_new_cluster_is_begun_once() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = "http://127.0.0.1:9";
    let first = config(dir.path(), "new", nobody);
    let founding = resolve(&first).await.unwrap();
    let names: Vec<_> =
        founding.members.iter().map(|member| (member.name.as_str(), member.peer_urls.join(","))).collect();
    assert_eq!(names, [("a", nobody.to_owned()), ("b", "http://127.0.0.1:1".into())]);
    assert!(founding.is_new && founding.members[1].id == founding.identity.member);
    // Both compute the same cluster, and later flags change nothing.
    assert_eq!(founding.identity.cluster, first.cluster.cluster_id());
    assert_eq!(resolve(&config(dir.path(), "existing", "http://127.0.0.1:8")).await.unwrap(), founding);
}

#[test]
fn c_6_a_member_that_lost_its_data_or_was_removed_does_not_begin_again() {
    let me = Identity { cluster: 0xab, member: 2 };
    let with = |id, urls: &[&str]| {
        let client_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let members = vec![peer::Member { id, client_urls, ..peer::Member::default() }];
        Cluster { id: 0xab, members, is_kvist: true }
    };
    assert!(check_running(&with(2, &[]), me).is_ok());
    assert!(matches!(check_running(&with(2, &["http://c"]), me), Err(Error::Lost(2))));
    assert!(matches!(check_running(&with(3, &[]), me), Err(Error::NotListed(2))));
    assert!(check_running(&with(3, &[]), Identity { cluster: 1, ..me }).is_ok());
}

#[tokio::test]
async fn who_joins_learns_its_ids_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let members = r#"[
        {"id":7,"peerURLs":["SELF"],"name":"a","clientURLs":["http://x"]},
        {"id":18446744073709551615,"peerURLs":["http://127.0.0.1:1"],"isLearner":true}
    ]"#;
    // It is not there at first, and asked again.
    let a = running(KVIST, members, Duration::from_millis(100)).await;
    let founding = resolve(&config(dir.path(), "existing", &a)).await.unwrap();
    assert_eq!(founding.identity, Identity { cluster: 0xab, member: u64::MAX });
    assert!(!founding.is_new && founding.members.len() == 2 && founding.members[1].is_learner);
    assert_eq!(identity::load(&dir.path().join("member")).unwrap(), Some(founding));
}

#[tokio::test]
async fn a_cluster_that_does_not_fit_is_not_joined() {
    let (a, b) = (r#"{"id":1,"peerURLs":["SELF"]}"#, r#"{"id":2,"peerURLs":["http://127.0.0.1:1"]}"#);
    let started = r#"{"id":2,"peerURLs":["http://127.0.0.1:1"],"clientURLs":["http://c"]}"#;
    let other = r#"{"id":1,"peerURLs":["http://127.0.0.1:5"]}"#;
    for (headers, members, expected) in [
        (KVIST, vec![b], "member count is unequal: the cluster has 1, --initial-cluster has 2"),
        (KVIST, vec![b, other], "while checking PeerURLs: 1 of the cluster has http://127.0.0.1:5, which"),
        (KVIST, vec![a, a], "unmatched member while checking PeerURLs"),
        ("", vec![a, b], "is one of etcd"),
        (KVIST, vec!["{"], "cannot fetch cluster info from peer urls: http://127.0.0.1:"),
        (KVIST, vec![a, started], "already been bootstrapped"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let url = running(headers, &format!("[{}]", members.join(",")), Duration::ZERO).await;
        let config = config(dir.path(), "existing", &url);
        let others = Others::of(&config).unwrap();
        let mut error = others.try_join().await.unwrap_err().to_string();
        while error.contains("Connection refused") {
            sleep(Duration::from_millis(10)).await;
            error = others.try_join().await.unwrap_err().to_string();
        }
        assert!(error.contains(expected), "{members:?}: {error}");
        assert!(!identity::is_known(&dir.path().join("member")));
    }
}

#[tokio::test]
async fn who_joins_alone_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Config { name: "b".into(), ..config(dir.path(), "existing", "http://127.0.0.1:9") };
    let mut cluster = alone.cluster.clone();
    cluster.initial.remove(0);
    let error = resolve(&Config { cluster, ..alone }).await.unwrap_err().to_string();
    assert!(error.contains("names every member of the cluster"), "{error}");
}
