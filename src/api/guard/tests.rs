//! The guard before a real HTTP/2 server, with raw frames from the client.

use super::Guard;
use super::frame::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Head, PADDED, PING, PRIORITY, Step, Walker,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

const MIN_TIME: Duration = Duration::from_secs(5);
const SETTINGS: u8 = 4;
const DATA: u8 = 0;
/// POST, http, and an authority as of old Go clients, which goes to the dynamic table.
const BAD: &[u8] = b"\x83\x86\x44\x02/p\x41\x15http://127.0.0.1:2379";

/// What reached the service: authority, `x` header, body.
type Seen = (String, String, usize);

struct Server {
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    seen: Receiver<Seen>,
    connection: JoinHandle<hyper::Result<()>>,
}

/// Serves one connection whose buffers hold `capacity` bytes, and opens it from the client's side.
async fn serve(capacity: usize) -> Server {
    let (client, server) = tokio::io::duplex(capacity);
    let (sender, seen) = channel(100);
    let service = service_fn(move |request: Request<Incoming>| {
        let sender = sender.clone();
        async move {
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            let x = request.headers().get("x").map_or("", |value| value.to_str().expect("text")).to_owned();
            let body = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
            sender.send((authority, x, body)).await.expect("the test listens");
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&[7; 40_000]))))
        }
    });
    let guard = TokioIo::new(Guard::new(server, MIN_TIME));
    let builder = http2::Builder::new(TokioExecutor::new());
    let connection = tokio::spawn(builder.serve_connection(guard, service));
    let (read, mut write) = tokio::io::split(client);
    write
        .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &[])].concat())
        .await
        .expect("opened");
    Server { read, write, seen, connection }
}

impl Server {
    async fn send(&mut self, bytes: &[u8]) {
        self.write.write_all(bytes).await.expect("the server reads");
    }

    async fn saw(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(10), self.seen.recv());
        next.await.expect("a request arrives").expect("the server lives")
    }

    /// Everything that the server still sends, as frames.
    async fn rest(mut self) -> Vec<(Head, Vec<u8>)> {
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), self.read.read_to_end(&mut bytes));
        end.await.expect("the connection ends").expect("without an error");
        let (mut walker, mut data, mut frames) = (Walker::default(), &*bytes, Vec::<(Head, Vec<u8>)>::new());
        while let Some(step) = walker.step(&mut data) {
            match step {
                Step::Head(head) => frames.push((head, Vec::new())),
                Step::Payload { piece, .. } => frames.last_mut().expect("a head comes first").1.extend(piece),
            }
        }
        assert_eq!(walker.unfinished(), None, "the last frame is whole");
        frames
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [Head::new(kind, flags, stream, payload.len()).bytes(), payload].concat()
}

fn seen(authority: &str, x: &str, body: usize) -> Seen {
    (authority.into(), x.into(), body)
}

#[tokio::test]
async fn malformed_authorities_are_served() {
    let mut server = serve(1 << 20).await;
    let field = b"\x40\x01x\x03one";
    server.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[BAD, field].concat())).await;
    assert_eq!(server.saw().await, seen("127.0.0.1:2379", "one", 0));
    // From the dynamic table; in two frames, padded, with a priority, and with a body.
    let block = [3, 0, 0, 0, 0, 16, 0x83, 0x86, 0xc0, 0xbf, 0, 0, 0];
    let request = [
        frame(HEADERS, PADDED | PRIORITY, 3, &block),
        frame(CONTINUATION, END_HEADERS, 3, &[0xbe]),
        frame(DATA, END_STREAM, 3, b"body"),
    ];
    server.send(&request.concat()).await;
    assert_eq!(server.saw().await, seen("127.0.0.1:2379", "one", 4));
    // A table that shrinks, and trailers.
    let request = [
        frame(HEADERS, END_HEADERS, 5, &[b"\x20", BAD].concat()),
        frame(DATA, 0, 5, b"body"),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, b"\x00\x07trailer\x01t"),
    ];
    server.send(&request.concat()).await;
    assert_eq!(server.saw().await, seen("127.0.0.1:2379", "", 4));
}

#[tokio::test]
async fn every_cut_of_a_request_is_served() {
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, BAD);
    let (good, rest) = (b"\x83\x86\x44\x02/p\x41\x09localhost", b"\x40\x01x\x03one");
    let second = [frame(HEADERS, END_STREAM, 3, good), frame(CONTINUATION, END_HEADERS, 3, rest)].concat();
    for cut in 0..first.len() + second.len() {
        let mut server = serve(1 << 20).await;
        let bytes = [&*first, &*second].concat();
        server.send(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        server.send(&bytes[cut..]).await;
        let both = [server.saw().await, server.saw().await];
        assert!(both.contains(&seen("127.0.0.1:2379", "", 0)), "{both:?}");
        assert!(both.contains(&seen("localhost", "one", 0)), "{both:?}");
    }
}

#[tokio::test]
async fn good_authorities_are_served() {
    let mut server = serve(1 << 20).await;
    for (stream, block) in [(1, &b"\x83\x86\x44\x02/p\x41\x09localhost"[..]), (3, b"\x83\x86\xbf\xbe")] {
        server.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, block)).await;
        assert_eq!(server.saw().await, seen("localhost", "", 0));
    }
}

/// The GOAWAY that ends the server's frames, and the error of the connection.
async fn sent_away(server: Server, last_stream: u32) {
    let connection = server.connection.abort_handle();
    let frames = server.rest().await;
    let (head, payload) = frames.last().expect("frames");
    assert_eq!(head.kind(), GOAWAY);
    assert_eq!(*payload, [&last_stream.to_be_bytes()[..], &11_u32.to_be_bytes(), b"too_many_pings"].concat());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !connection.is_finished() {
        assert!(std::time::Instant::now() < deadline, "the connection ends");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn too_many_pings() {
    let mut server = serve(1 << 20).await;
    server.send(&frame(PING, 0, 0, &[7; 8]).repeat(4)).await;
    sent_away(server, 0).await;
}

#[tokio::test]
async fn too_many_pings_after_requests() {
    for block in [BAD, b"\x83\x86\x44\x02/p\x41\x09localhost"] {
        let mut server = serve(1 << 20).await;
        server.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, block)).await;
        server.saw().await;
        server.send(&frame(HEADERS, END_HEADERS, 3, b"\x83\x86\x44\x02/p")).await;
        // The answer to the first request excuses a ping, whenever it comes.
        server.send(&frame(PING, 0, 0, &[7; 8]).repeat(20)).await;
        sent_away(server, 3).await;
    }
}

/// A GOAWAY never interrupts a frame: the client reads little, and pings while an answer is on its way.
#[tokio::test]
async fn frames_are_ended_before_the_goaway() {
    for capacity in [64, 100, 1000, 5000] {
        let Server { mut read, mut write, seen: mut requests, connection } = serve(capacity).await;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x83\x86\x44\x02/p\x41\x09localhost");
        write.write_all(&request).await.expect("the server reads");
        requests.recv().await.expect("a request");
        for _ in 0..100 {
            tokio::task::yield_now().await; // nothing of the answer is read: the server fills the pipe
        }
        let sending = tokio::spawn(async move {
            let _ = write.write_all(&frame(PING, 0, 0, &[7; 8]).repeat(20)).await; // the server stops reading
            write
        });
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut bytes));
        end.await.expect("the connection ends").expect("without an error");
        let (mut walker, mut last) = (Walker::default(), None);
        walker.heads(&bytes, |head| last = Some(head.kind()));
        assert_eq!((walker.unfinished(), last), (None, Some(GOAWAY)), "capacity {capacity}");
        assert!(connection.await.expect("no panic").is_err());
        drop(sending.await.expect("no panic"));
    }
}

/// The GOAWAY does not wait for a further write after the frame that held it up.
#[tokio::test]
async fn the_end_of_a_frame_lets_the_goaway_out() {
    let (mut client, server) = tokio::io::duplex(64);
    let (mut read, mut write) = tokio::io::split(Guard::new(server, MIN_TIME));
    let client = tokio::spawn(async move {
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(2);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        client.write_all(&[pings.clone(), pings].concat()).await.expect("written");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.expect("the end");
        bytes
    });
    let answer = frame(PING, 1, 0, &[7; 200]);
    let ended = async {
        let mut bytes = Vec::new();
        let reading = async { read.read_to_end(&mut bytes).await.expect_err("too many pings") };
        tokio::join!(biased; reading, write.write_all(&answer))
    };
    let began = std::time::Instant::now();
    let (error, written) = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("no stall");
    assert!(began.elapsed() < Duration::from_secs(10), "nothing but the timeout woke the reader");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    written.expect("the frame is written whole");
    let bytes = client.await.expect("no panic");
    assert!(bytes.starts_with(&answer) && bytes.ends_with(b"too_many_pings"));
}
