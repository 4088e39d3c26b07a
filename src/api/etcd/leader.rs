//! Streams whose clients require a leader end when there has been none for a while (G-1).

use super::{Etcd, error};
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
    pub fn watch(
        has_leader: impl Fn() -> bool + Send + 'static,
        election_timeout: Duration,
        shutdown: Shutdown,
    ) -> Leaderless {
        let (sender, receiver) = watch::channel(false);
        let look = async move {
            let mut without = 0;
            loop {
                tokio::time::sleep(election_timeout).await;
                without = if has_leader() { 0 } else { LOOKS.min(without + 1) };
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
        ended_by(answers, self.leader_lost(headers))
    }
}

/// The stream up to its end, or until `lost` resolves.
fn ended_by<S, T, L>(answers: S, lost: Option<L>) -> impl Stream<Item = Result<T, Status>>
where
    S: Stream<Item = Result<T, Status>>,
    L: Future<Output = Status>,
{
    let lost = stream::iter(lost).then(|lost| async { [Some(Err(lost.await)), None] });
    let lost = lost.flat_map(stream::iter);
    let answers = answers.map(Some).chain(stream::once(ready(None)));
    stream::select(answers, lost).take_while(|item| ready(item.is_some())).filter_map(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn g_1_three_looks_in_a_row_find_no_leader() {
        let (_trigger, shutdown) = Shutdown::by_hand();
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        // A leader at the third look, and from the seventh on.
        let has_leader = move || [2, 6].contains(&counted.fetch_add(1, Ordering::Relaxed).min(6));
        let leaderless = Leaderless::watch(has_leader, Duration::from_millis(20), shutdown);
        let waiting = leaderless.clone().lost();
        assert_eq!(waiting.await.message(), error::Error::NoLeader.message());
        assert!(looks.load(Ordering::Relaxed) >= 6);
        let mut told = leaderless.0;
        told.wait_for(|is_lost| !is_lost).await.expect("there is a leader again");
    }

    #[tokio::test]
    async fn g_1_a_stream_ends_by_itself_or_with_the_leader() {
        let answers = || stream::iter([Ok(1), Ok(2)]);
        let never = std::future::pending::<Status>;
        let all = |items: Vec<Result<i32, Status>>| items.into_iter().map(Result::ok).collect::<Vec<_>>();
        assert_eq!(all(ended_by(answers(), Some(never())).collect().await), [Some(1), Some(2)]);
        assert_eq!(
            all(ended_by(answers(), None::<std::future::Ready<Status>>).collect().await),
            [Some(1), Some(2)]
        );
        let open = answers().chain(stream::pending());
        let lost = ready(error::Error::NoLeader.into());
        let seen = all(ended_by(open, Some(lost)).collect().await);
        assert_eq!(seen.iter().filter(|item| item.is_none()).count(), 1, "{seen:?}");
    }
}
