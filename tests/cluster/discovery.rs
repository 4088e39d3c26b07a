//! Clusters whose members DNS names: each process has an `/etc/resolv.conf` of its own, which points to a server in this test.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cluster::{Cluster, Plan};

const DOMAIN: &str = "kvist.test";
const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;

/// A DNS server on port 53 of an address of loopback: some SRV records, and 127.0.0.1 for every host of [`DOMAIN`].
struct Dns {
    address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// `members` are host and port of those whom `service` names.
    fn start(service: &str, members: Vec<(String, u16)>) -> io::Result<Dns> {
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let address = format!("127.53.{high}.{low}");
        let socket = UdpSocket::bind((address.as_str(), 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (stop, service) = (Arc::new(AtomicBool::new(false)), format!("{service}._tcp.{DOMAIN}"));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                let answer = answer(&query[..length], &service, &members);
                socket.send_to(&answer, from).expect("send an answer");
            }
        });
        Ok(Dns { address, stop, thread: Some(thread) })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the DNS server");
        }
    }
}

/// A name as messages have it: each label after its length.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// Header, the question again, and an answer for each record.
fn answer(query: &[u8], service: &str, members: &[(String, u16)]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("the end of a name") + 1;
    let name = query[12..end].to_ascii_lowercase();
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let is_host = name.ends_with(&wire(DOMAIN)) && !name.contains(&b'_');
    let records: Vec<Vec<u8>> = match kind {
        TYPE_SRV if name == wire(service) => {
            let record = |(host, port): &(String, u16)| {
                [&[0, 0, 0, 0], port.to_be_bytes().as_slice(), &wire(host)].concat()
            };
            members.iter().map(record).collect()
        }
        TYPE_A if is_host => vec![vec![127, 0, 0, 1]],
        _ => Vec::new(),
    };
    // A name that is not there has code 3; a host has no records of other types.
    let code = if records.is_empty() && !is_host { 3 } else { 0 };
    let mut message = [&query[..2], &[0x85, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
    message.extend(&query[12..end + 4]);
    for record in records {
        // The name of the question, its type and class, a minute to live.
        message.extend([0xc0, 12].iter().chain(&query[end..end + 4]).chain(&[0, 0, 0, 60]));
        message.extend((record.len() as u16).to_be_bytes());
        message.extend(record);
    }
    message
}

/// The words before a command that give it another `/etc/resolv.conf`; `None` where that is not allowed.
fn with_resolver(cluster: &Cluster, address: &str) -> Option<Vec<String>> {
    let file = cluster.dir().join("resolv.conf");
    fs::write(&file, format!("nameserver {address}\noptions timeout:1 attempts:2\n")).expect("a file");
    let mount = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;
    [&["unshare", "--mount"][..], &["unshare", "--user", "--map-root-user", "--mount"]].iter().find_map(
        |words| {
            let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            words.extend(["sh", "-c", mount].map(str::to_owned));
            words.push(file.display().to_string());
            let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output();
            tried.is_ok_and(|output| output.status.success()).then_some(words)
        },
    )
}

/// Three members that find each other and themselves by SRV records, under a service name with a suffix: one advertises the
/// name that the record has, the others their address. A fourth, which no record names, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn members_are_found_by_dns() {
    let mut cluster = Cluster::prepare(Plan::of(4));
    let port = |url: &str| url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let targets: Vec<(String, u16)> =
        cluster.members[..3].iter().map(|m| (format!("{}.{DOMAIN}", m.name), port(&m.peer_url))).collect();
    let dns = match Dns::start("_etcd-server-blue", targets.clone()) {
        Ok(dns) => dns,
        Err(error) => return eprintln!("skipped: no DNS server on port 53 of loopback: {error}"),
    };
    let Some(wrapper) = with_resolver(&cluster, &dns.address) else {
        return eprintln!("skipped: no mount namespace to be made");
    };
    for member in &mut cluster.members {
        member.wrapper = wrapper.clone();
        member.flags.retain(|flag| !flag.starts_with("--initial-cluster="));
        member.flags.extend(["--discovery-srv", DOMAIN, "--discovery-srv-name=blue"].map(str::to_owned));
    }
    let urls: Vec<String> = targets.iter().map(|(host, port)| format!("http://{host}:{port}")).collect();
    cluster.members[0].flags.push(format!("--initial-advertise-peer-urls={}", urls[0]));
    let stranger = &mut cluster.members[3];
    stranger.start();
    assert_eq!(stranger.ended().code(), Some(1));
    let text = stranger.log_text();
    assert!(text.contains(r#"cannot find local etcd member \"m3\" in SRV records"#), "{text}");
    stranger.is_removed = true;

    cluster.start_all();
    cluster.wait_ready().await;
    let mut members = cluster.api(1).members().await.expect("the members");
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<(&str, &str)> =
        members.iter().map(|m| (m.name.as_str(), m.peer_ur_ls[0].as_str())).collect();
    let expected: Vec<(&str, &str)> =
        ["m0", "m1", "m2"].into_iter().zip(urls.iter().map(String::as_str)).collect();
    assert_eq!(found, expected);
    cluster.api(2).put("key", "value").await.expect("put");
    assert_eq!(cluster.api(0).value("key").await.as_deref(), Some("value"));

    // Later starts need no records any more.
    drop(dns);
    let _hosts = Dns::start("_none", Vec::new()).expect("a DNS server again");
    cluster.members[0].kill();
    cluster.members[0].start();
    cluster.serves(0).await;
}
