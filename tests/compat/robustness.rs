//! Bytes that no client sends: the server answers, closes or waits, keeps serving everybody else, and does not grow.
//! Raw TCP here; malformed messages inside sound HTTP/2 are in `robustness_grpc.rs`. Contract 9 as a whole.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::support::Server;
use crate::watch_client::{Clients, rss_anon_bytes, watch_key};

pub const GROWTH_MAX: u64 = 96 * 1024 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.client_port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("read timeout");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("write timeout");
    stream
}

/// Writes what the peer takes, ends the request side and reads what comes; errors are the peer's right.
fn throw(server: &Server, bytes: &[u8]) {
    let mut stream = connect(server);
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut sink = [0_u8; 4096];
    let _ = stream.read(&mut sink);
}

/// An HTTP/2 frame whose length field may lie about the payload.
fn frame(claimed: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = claimed.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn honest(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(u32::try_from(payload.len()).expect("small"), kind, flags, stream, payload)
}

/// A header block of literals without indexing: the call of `path` as gRPC.
fn call_headers(path: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for part in [name, value] {
            block.push(u8::try_from(part.len()).expect("a short header"));
            block.extend(part.as_bytes());
        }
    }
    block
}

fn open_file_count(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("open files").count()
}

/// Runs `attack` while a watcher and a writer of another connection go on; checks service, memory and open files.
async fn survives(attack: impl FnOnce(&Server)) {
    let server = Server::start();
    let clients = Clients::connect(&server).await;
    let mut stream = clients.watch_stream();
    stream.create(watch_key("a")).await;
    clients.put("a", "1").await;
    let (memory, files) = (rss_anon_bytes(&server), open_file_count(&server));
    tokio::task::block_in_place(|| attack(&server));
    clients.put("a", "2").await;
    assert_eq!(stream.briefs(2).await, ["put a=1@2", "put a=2@3"]);
    Clients::connect(&server).await.put("a", "3").await;
    let growth = rss_anon_bytes(&server).saturating_sub(memory);
    assert!(growth < GROWTH_MAX, "anonymous memory grew by {growth} bytes");
    crate::watch_client::poll("the server to close what the attack left", async || {
        open_file_count(&server) <= files + 10
    })
    .await;
}

/// Random bytes on fresh connections, alone and after a sound HTTP/2 preface.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robust_random_bytes() {
    survives(|server| {
        let mut random = StdRng::seed_from_u64(7);
        for i in 0..200 {
            let mut bytes = vec![0; 16 + i * 20];
            random.fill_bytes(&mut bytes);
            if i % 2 == 0 {
                bytes.splice(0..0, [PREFACE, &honest(4, 0, 0, &[])].concat());
            }
            throw(server, &bytes);
        }
    })
    .await;
}

/// HTTP/1.1 in odd shapes on the same port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robust_http_1_nonsense() {
    survives(|server| {
        let long = [b"GET /".as_slice(), &vec![b'a'; 1 << 20], b" HTTP/1.1\r\n\r\n"].concat();
        let many: Vec<u8> = (0..20_000).flat_map(|i| format!("x{i}: y\r\n").into_bytes()).collect();
        let many = [b"GET /health HTTP/1.1\r\nhost: x\r\n".as_slice(), &many, b"\r\n"].concat();
        let requests: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET /health HTTP/9.9\r\n\r\n",
            b"POST /v3/kv/range HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
            b"POST /v3/kv/range HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\r\n\r\n\r\n\r\n",
            &long,
            &many,
        ];
        for request in requests {
            throw(server, request);
        }
    })
    .await;
}

/// Broken HTTP/2: frames that lie about their length, too large, of unknown kinds, on wrong streams, header bombs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robust_http_2_frames() {
    survives(|server| {
        let headers = call_headers("/etcdserverpb.KV/Range");
        let open = honest(1, 4, 1, &headers);
        let cases = [
            frame(0x00ff_ffff, 0, 0, 1, &[0; 4096]), // DATA of 16 MiB on an idle stream
            [open.clone(), frame(0x00ff_ffff, 0, 0, 1, &[0; 4096])].concat(), // and on an open one
            [open.clone(), honest(0, 1, 1, &[0, 0, 0])].concat(), // half a gRPC prefix, then the end
            [open.clone(), honest(0, 1, 1, &[0, 0, 0, 0, 200, 1, 2])].concat(), // half a message, then the end
            [open.clone(), honest(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1])].concat(), // 4 GiB announced
            [open.clone(), honest(3, 0, 1, &[0, 0, 0, 8]), honest(0, 1, 1, &[0; 5])].concat(), // DATA after reset
            [open.clone(), open.clone()].concat(), // HEADERS twice
            honest(1, 4, 1, &[0xff; 2000]),        // no HPACK
            [honest(1, 0, 1, &headers), honest(0, 0, 1, &[])].concat(), // DATA where CONTINUATION must be
            honest(9, 0, 1, &[7; 16]).repeat(2000), // CONTINUATION without HEADERS
            [honest(1, 0, 1, &headers), honest(9, 0, 1, &[0x40, 1, b'a', 1, b'b']).repeat(20_000)].concat(), // CONTINUATION without end
            honest(4, 0, 0, &[0; 5]), // SETTINGS of a wrong size
            honest(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(3), // window overflow
            honest(6, 0, 0, &[0; 8]).repeat(5000), // PING flood
            honest(4, 0, 0, &[]).repeat(5000), // SETTINGS flood
            honest(77, 0xff, 9, &[1, 2, 3]), // unknown kind
            honest(1, 4, 2, &headers), // even stream id
            honest(5, 4, 1, &headers), // PUSH_PROMISE from a client
            honest(7, 0, 0, &[0xff; 8]), // GOAWAY
        ];
        for case in cases {
            throw(server, &[PREFACE, &honest(4, 0, 0, &[]), &case].concat());
        }
    })
    .await;
}

/// Streams opened and reset at once, again and again (the rapid reset attack).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robust_rapid_reset() {
    survives(|server| {
        let headers = call_headers("/etcdserverpb.Watch/Watch");
        for _ in 0..5 {
            let mut bytes = [PREFACE, &honest(4, 0, 0, &[])].concat();
            for i in 0..5000_u32 {
                bytes.extend(honest(1, 4, 2 * i + 1, &headers));
                bytes.extend(honest(3, 0, 2 * i + 1, &8_u32.to_be_bytes()));
            }
            throw(server, &bytes);
        }
    })
    .await;
}

/// Connections that say nothing, or half of something, and stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn robust_half_open_connections() {
    survives(|server| {
        let open = honest(1, 4, 1, &call_headers("/etcdserverpb.KV/Put"));
        let beginnings: [&[u8]; 5] = [
            b"",
            &PREFACE[..10],
            PREFACE,
            b"GET /health HT",
            &[PREFACE, &honest(4, 0, 0, &[]), &open, &honest(0, 0, 1, &[0, 0, 0, 1, 0, 9])].concat(),
        ];
        let mut held = Vec::new();
        for i in 0..300 {
            let mut stream = connect(server);
            stream.write_all(beginnings[i % beginnings.len()]).expect("a few bytes");
            held.push(stream);
        }
        let done = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("runtime");
                runtime.block_on(async { Clients::connect(server).await.revision().await })
            });
            work.join().expect("a new client is served beside them")
        });
        assert_eq!(done, 2);
    })
    .await;
}

/// Contract 8 (grpc keepalive), trap 25: pings more often than every 5 s end the connection with `too_many_pings`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contract_8_too_many_pings() {
    survives(|server| {
        let mut stream = connect(server);
        stream.write_all(&[PREFACE, &honest(4, 0, 0, &[])].concat()).expect("the preface");
        let mut answers = Vec::new();
        crate::support::wait_until("too_many_pings", crate::watch_client::REPLY_TIMEOUT, || {
            let _ = stream.write_all(&honest(6, 0, 0, &[7; 8]));
            let mut chunk = [0_u8; 4096];
            let count = stream.read(&mut chunk).unwrap_or(0);
            answers.extend_from_slice(&chunk[..count]);
            answers.windows(14).any(|w| w == b"too_many_pings")
        });
    })
    .await;
}
