//! `Maintenance.Snapshot`: a backup in messages of 32 KiB, then its SHA-256.
//!
//! A backup is built first, which takes as long as reading all data, and then sent as fast as the client takes it. Its file
//! takes disk space until the stream ends; so few are made at a time, and a client that takes nothing is sent away.

use super::{Etcd, error};
use crate::engine::export::Export;
use crate::metrics::{self, METRICS};
use crate::pb::etcdserverpb::SnapshotResponse;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Backups under way; further calls wait for their turn.
pub const BACKUPS_MAX: usize = 2;
/// Bytes in a message, as etcd sends them.
const MESSAGE_BYTES: usize = 32 << 10;
/// Bytes read from the file at once.
const READ_BYTES: usize = 1 << 20;
/// Messages made ahead of the client.
const QUEUE_MAX: usize = 8;
/// A client that takes no message for this long is gone, or in the way of others.
const STALL_MAX: Duration = Duration::from_secs(300);

/// Messages of one backup.
pub type Messages = ReceiverStream<Result<SnapshotResponse, Status>>;

impl Etcd {
    /// Makes a backup and starts to send it.
    pub(super) async fn send_backup(&self) -> Result<Messages, Status> {
        let begin = Instant::now();
        let permit = Arc::clone(&self.backups).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let export = self.engine.export().await.map_err(error::status)?;
        tracing::info!(bytes = export.len, revision = export.revision, "sending a snapshot");
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = send(export, permit, &sender) => {
                    metrics::observe_since(&METRICS.disk.backend_snapshot, begin);
                    sent
                }
                () = shutdown.requested() => Err(error::Error::Stopped.into()),
            };
            // File and permit are given back by now; whether the client ever hears of it is up to the client.
            if let Err(status) = sent {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }
}

type Sender = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Sends it all. A client that has gone away is no error.
async fn send(export: Export, _permit: OwnedSemaphorePermit, sender: &Sender) -> Result<(), Status> {
    let Export { file, len, version, .. } = export;
    let message = |remaining_bytes, blob: &[u8]| SnapshotResponse {
        header: None,
        remaining_bytes,
        blob: blob.to_vec(),
        version: version.clone(),
    };
    let file = Arc::new(file);
    let mut digest = Sha256::new();
    let mut at = 0;
    while at < len {
        let read = read(&file, at, len, digest).await.map_err(|error| {
            tracing::error!(%error, "reading a snapshot's temporary file failed");
            Status::unknown(error.to_string())
        })?;
        digest = read.digest;
        for blob in read.bytes.chunks(MESSAGE_BYTES) {
            at += blob.len() as u64;
            if !offer(sender, message(len - at, blob)).await? {
                return Ok(());
            }
        }
    }
    offer(sender, message(0, &digest.finalize())).await.map(drop)
}

/// Queues a message as soon as there is room; `false` if the client has gone away.
async fn offer(sender: &Sender, message: SnapshotResponse) -> Result<bool, Status> {
    match tokio::time::timeout(STALL_MAX, sender.send(Ok(message))).await {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => {
            tracing::warn!("a client takes nothing of its snapshot; giving up");
            Err(Status::deadline_exceeded("the snapshot was not received in time"))
        }
    }
}

/// Bytes of the file, and the digest of all bytes so far.
struct Read {
    bytes: Vec<u8>,
    digest: Sha256,
}

/// Reads and digests on a thread that may block: other connections are served on this one.
async fn read(file: &Arc<File>, at: u64, len: u64, mut digest: Sha256) -> io::Result<Read> {
    let file = Arc::clone(file);
    let wanted = usize::try_from(len - at).unwrap_or(usize::MAX).min(READ_BYTES);
    let read = move || {
        let mut bytes = vec![0; wanted];
        file.read_exact_at(&mut bytes, at)?;
        digest.update(&bytes);
        Ok(Read { bytes, digest })
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
