//! Streams whose clients require a leader end when there has been none for a while (G-1).

use super::{Etcd, error};
use crate::engine::Engine;
use crate::shutdown::Shutdown;
use futures_util::stream::{self, Stream, StreamExt};
use http::HeaderMap;
use std::future::{Future, ready};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// So many looks in a row, an election timeout apart, must find no leader.
const LOOKS: u32 = 3;

/// Whether there has been no leader for a while. Cheap to clone.
#[derive(Clone)]
pub(super) struct Leaderless(watch::Receiver<bool>);

impl Leaderless {
    /// Looks every `election_timeout` from now on, until the server stops.
    pub fn watch(engine: Engine, election_timeout: Duration, shutdown: Shutdown) -> Leaderless {
        let (sender, receiver) = watch::channel(false);
        let look = async move {
            let mut without = 0;
            loop {
                tokio::time::sleep(election_timeout).await;
                without = if engine.has_leader() { 0 } else { LOOKS.min(without + 1) };
                sender.send_if_modified(|known| {
                    let is_lost = without == LOOKS;
                    std::mem::replace(known, is_lost) != is_lost
                });
            }
        };
        tokio::spawn(async move {
            tokio::select! {
                () = look => {}
                () = shutdown.requested() => {}
            }
        });
        Leaderless(receiver)
    }

    /// Resolves when the leader has been gone for long enough; never once the server stops.
    pub async fn lost(mut self) -> Status {
        if self.0.wait_for(|is_lost| *is_lost).await.is_err() {
            std::future::pending::<()>().await;
        }
        error::Error::NoLeader.into()
    }
}

/// Whether a client requires a leader.
pub(super) fn is_required(headers: &HeaderMap) -> bool {
    headers.get_all("hasleader").iter().any(|value| value == "true")
}

impl Etcd {
    /// What ends a stream that these headers opened: the loss of the leader, if one is required.
    pub(super) fn leader_lost(
        &self,
        headers: &HeaderMap,
    ) -> Option<impl Future<Output = Status> + Send + use<>> {
        is_required(headers).then(|| self.leaderless.clone().lost())
    }

    /// The stream, ended by the loss of the leader if these headers require one.
    pub(super) fn while_led<S, T>(
        &self,
        headers: &HeaderMap,
        answers: S,
    ) -> impl Stream<Item = Result<T, Status>> + Send + use<S, T>
    where
        S: Stream<Item = Result<T, Status>> + Send,
        T: Send,
    {
        let lost = stream::iter(self.leader_lost(headers)).then(|lost| async { Some(Err(lost.await)) });
        let answers = answers.map(Some).chain(stream::once(ready(None)));
        // Whichever ends or fails first is the end of the whole.
        stream::select(answers, lost).take_while(|item| ready(item.is_some())).filter_map(ready)
    }
}
