//! The workload of the maintenance service: snapshots, read to the end, checked, and thrown away.

use crate::bench::load::Op;
use crate::bench::tally::{Failure, Ledger};
use crate::bench::worker::Worker;
use crate::client::Link;
use crate::client::save::Checksum;
use crate::pb::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use std::rc::Rc;
use std::time::Instant;

/// Longest message that is taken; servers send 32 KiB.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Takes a snapshot.
pub struct Snapshot {
    maintenance: MaintenanceClient<Link>,
    ledger: Rc<Ledger>,
}

impl Snapshot {
    pub fn new(worker: &Worker, n: usize) -> Snapshot {
        let maintenance = MaintenanceClient::new(worker.link(n)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Snapshot { maintenance, ledger: Rc::clone(&worker.ledger) }
    }
}

impl Op for Snapshot {
    async fn send(&mut self, _due: Instant) -> Result<Option<&'static str>, Failure> {
        let mut stream = self.maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner();
        let mut checksum = Checksum::default();
        while let Some(message) = stream.message().await? {
            checksum.take(&message.blob);
            self.ledger.sum("bytes", message.blob.len() as u64);
        }
        checksum.verify().map_err(|error| Failure::Wrong(error.to_string()))?;
        Ok(None)
    }
}
