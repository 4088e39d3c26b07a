//! Flags whose effect is seen from outside: all that kubeadm writes, and the defragmentation at the start.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::sync::Arc;

use crate::client::{self, Client};
use crate::etcdctl;
use crate::http_client::curl;
use crate::support::{READY, Server, free_port, server_binary, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A CA and what it signed, by the names that kubeadm gives them.
fn make_certificates(dir: &Path) {
    let key = || KeyPair::generate().expect("a key");
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("write a certificate");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "etcd-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = key();
    write("ca.crt", params.self_signed(&ca_key).expect("a CA").pem());
    let issuer = Issuer::new(params, ca_key);
    for name in ["server", "peer", "client"] {
        let names = ["localhost", "127.0.0.1", "127.0.0.2"].map(str::to_owned).to_vec();
        let mut params = CertificateParams::new(names).expect("readable names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = key();
        write(&format!("{name}.crt"), params.signed_by(&own, &issuer).expect("a certificate").pem());
        write(&format!("{name}.key"), own.serialize_pem());
    }
}

/// The flags of the manifest in `packaging`, with this machine's directories and ports.
fn flags_of_the_manifest(pki: &Path, data: &Path, [client, peer, metrics]: [u16; 3]) -> Vec<String> {
    let manifest = include_str!("../../packaging/kubernetes/kvist.yaml");
    let flags: Vec<String> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- --"))
        .map(|flag| {
            format!("--{flag}")
                .replace("/etc/kubernetes/pki/etcd", &pki.display().to_string())
                .replace("/var/lib/kvist", &data.display().to_string())
                .replace("10.0.0.1", "127.0.0.2")
                .replace(":2379", &format!(":{client}"))
                .replace(":2380", &format!(":{peer}"))
                .replace(":2381", &format!(":{metrics}"))
        })
        .collect();
    assert_eq!(flags.len(), 19, "every flag of the manifest is found");
    flags
}

#[test]
fn the_flags_of_kubeadm_start_a_server() {
    let temp = tempfile::tempdir().expect("temporary directory");
    make_certificates(temp.path());
    let ports = [free_port(), free_port(), free_port()];
    let [client, _, metrics] = ports;
    let flags = flags_of_the_manifest(temp.path(), &temp.path().join("data"), ports);
    let mut command = Command::new(server_binary());
    let command = command.args(flags).current_dir(temp.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = KillOnDrop(command.spawn().expect("start the server"));
    let stderr = child.0.stderr.take().expect("stderr is piped");
    let log = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&log);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().push_str(&(line + "\n"));
        }
    });
    wait_until("the server to be ready", PATIENCE, || {
        let ended = child.0.try_wait().expect("wait for the server");
        assert!(ended.is_none(), "the server ended:\n{}", log.lock());
        log.lock().contains(READY)
    });
    // The probes of the manifest.
    for path in ["livez", "readyz"] {
        let answer = curl(&[&format!("http://127.0.0.1:{metrics}/{path}")]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
    for binary in etcdctl::binaries() {
        for address in ["127.0.0.1", "127.0.0.2"] {
            let ctl = |args: &[&str], with_certificate: bool| {
                let mut command = Command::new(&binary);
                command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://{address}:{client}"));
                command
                    .arg("--dial-timeout=1s")
                    .arg(format!("--cacert={}", temp.path().join("ca.crt").display()));
                if with_certificate {
                    command.arg(format!("--cert={}", temp.path().join("client.crt").display()));
                    command.arg(format!("--key={}", temp.path().join("client.key").display()));
                }
                command.args(args).output().expect("run etcdctl")
            };
            let put = ctl(&["put", "k", "v"], true);
            assert_eq!(String::from_utf8_lossy(&put.stdout).trim(), "OK", "{put:?}");
            assert!(
                !ctl(&["--command-timeout=1s", "get", "k"], false).status.success(),
                "no certificate, no answer"
            );
        }
    }
}

/// Space that compaction has freed goes back to the file system at the start, if it is enough.
#[tokio::test]
async fn a_start_defragments_when_it_is_worth_it() {
    const START: [&str; 1] = ["--bootstrap-defrag-threshold-megabytes=10"];
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut server = Server::start_in(temp.path(), &[]);
    let clients = Client::connect(server.url()).await;
    for n in 0..20 {
        clients.put(format!("big{n}"), vec![b'v'; 1 << 20]).await;
    }
    clients.delete(client::delete_range("big", "bih")).await;
    clients.put("kept", "v").await;
    clients.compact(clients.revision().await).await;
    drop(clients);
    server.terminate();
    drop(server);
    let before = size_of(temp.path());
    assert!(before > 15 << 20, "{before} bytes are there to be gained");
    let (mut server, log) = start_and_log(temp.path(), &START);
    assert!(log.contains("finished defragmenting directory"), "{log}");
    let clients = Client::connect(server.url()).await;
    assert!(clients.get("kept").await.is_some() && clients.get("big1").await.is_none());
    server.terminate();
    let after = size_of(temp.path());
    assert!(after + (10 << 20) < before, "{before} bytes before, {after} after");
    drop(server);
    let (_server, log) = start_and_log(temp.path(), &START);
    assert!(log.contains("Skipping defragmentation"), "{log}");
}

fn start_and_log(dir: &Path, args: &[&str]) -> (Server, String) {
    let server = Server::start_in(dir, args);
    let log = server.log_lines().join("\n");
    (server, log)
}

/// Bytes of the database below `dir`, without the log.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() && entry.file_name() != "wal" => size_of(&entry.path()),
        Ok(data) if data.is_file() => data.blocks() * 512,
        _ => 0,
    };
    entries.flatten().map(size).sum()
}
