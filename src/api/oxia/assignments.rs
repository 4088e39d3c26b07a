//! The stream of shard assignments: where the leader is, told at once and again whenever that changes.

use super::shards::Shards;
use crate::config::url::{EndpointUrl, Scheme};
use crate::engine::Engine;
use crate::engine::command::Member;
use crate::pb::oxia::ShardAssignmentsResponse;
use crate::shutdown::Shutdown;
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Time between two looks at who leads, while anybody wants to know.
const LOOK: Duration = Duration::from_millis(100);

/// Lists of all shards, one for each change.
pub(super) type Assignments =
    Pin<Box<dyn Stream<Item = Result<ShardAssignmentsResponse, Status>> + Send + 'static>>;

/// The address of the leader, for all streams. A stream that is read too slowly skips addresses, never the last one. Cheap
/// to clone.
#[derive(Clone)]
pub(super) struct Lead {
    engine: Engine,
    /// `None` until a leader with an address is known; kept while there is none.
    address: Arc<watch::Sender<Option<Arc<str>>>>,
    shutdown: Shutdown,
}

impl Lead {
    /// Looks again and again from now on, until the server stops.
    pub fn watch(engine: Engine, shutdown: Shutdown) -> Lead {
        let lead = Lead { engine, address: Arc::new(watch::channel(None).0), shutdown };
        let looking = lead.clone();
        tokio::spawn(async move {
            let look = async {
                loop {
                    tokio::time::sleep(LOOK).await;
                    if looking.address.receiver_count() > 0 {
                        looking.look();
                    }
                }
            };
            tokio::select! {
                () = look => {}
                () = looking.shutdown.requested() => {}
            }
        });
        lead
    }

    fn look(&self) {
        let leader = self.engine.leader();
        let leads = |member: &Member| member.id == leader;
        let Some(found) = self.engine.members().into_iter().find(leads).and_then(address) else { return };
        self.address.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&found);
            if is_new {
                *known = Some(found.into());
            }
            is_new
        });
    }

    /// All shards as of now, and as of each change, until the server stops. Nothing is said before there is a leader.
    pub fn assignments(&self, shards: Shards) -> Assignments {
        let mut address = self.address.subscribe();
        self.look();
        if address.borrow().is_some() {
            address.mark_changed();
        }
        let shutdown = self.shutdown.clone();
        let addresses = stream::unfold(address, |mut address| async move {
            address.changed().await.ok()?;
            let found = address.borrow_and_update().clone();
            Some((found, address))
        });
        let lists = addresses.filter_map(move |address| {
            let assignments = address.map(|address| shards.led_by(&address));
            std::future::ready(assignments.map(|assignments| Ok(ShardAssignmentsResponse { assignments })))
        });
        Box::pin(lists.take_until(async move { shutdown.requested().await }))
    }
}

/// Where clients reach a member: `host:port` of its first URL of TCP, or else its first URL.
fn address(member: Member) -> Option<String> {
    let urls = member.client_urls.iter().filter_map(|url| EndpointUrl::parse(url).ok());
    let mut over_tcp = urls.filter(|url| matches!(url.scheme(), Scheme::Http | Scheme::Https));
    over_tcp.next().map(|url| url.address().to_owned()).or_else(|| member.client_urls.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_first_one_that_can_be_dialled() {
        let member = |urls: &[&str]| {
            let client_urls = urls.iter().map(|url| (*url).to_owned()).collect();
            Member { client_urls, ..Member::default() }
        };
        let mixed = member(&["unix:///run/a", "https://[::1]:2379", "http://b:1"]);
        assert_eq!(address(mixed).as_deref(), Some("[::1]:2379"));
        assert_eq!(address(member(&["unix:///run/a"])).as_deref(), Some("unix:///run/a"));
        assert_eq!(address(member(&[])), None);
    }
}
