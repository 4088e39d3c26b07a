//! The protocols on the client port beside etcd's: one entry each.
//!
//! An adapter is a folder that speaks one protocol. It may use `engine`, `types`, `config` and `pb`, and the errors of what is below. To
//! add one: its `.proto` files, its folder, an entry of [`PROTOCOLS`], and its name in `config::protocols`.

use crate::api::{dengine, oxia, rfc};
use crate::config::Protocols;
use crate::engine::Engine;
use crate::metrics::grpc::Service;
use crate::shutdown::Shutdown;
use http::{Request, Response};
use std::convert::Infallible;
use std::time::Duration;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

/// What answers the calls of one service.
pub type Serve = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// One protocol.
pub struct Protocol {
    /// Its name in `--protocols`.
    pub name: &'static str,
    /// Its services, with their methods.
    pub services: &'static [Service],
    /// Whether a learner answers the call with this path, such as `/etcd/Range`.
    pub is_for_learners: fn(&str) -> bool,
    /// What answers the calls of each service, by its name, inside a runtime.
    pub open: fn(&Context) -> Vec<(&'static str, Serve)>,
}

/// What an adapter gets.
#[derive(Clone)]
pub struct Context {
    /// Everything it does, it does by this.
    pub engine: Engine,
    /// Operations in one list of a txn.
    pub txn_ops_max: usize,
    /// How often an idle watcher that wants it hears of progress.
    pub progress_interval: Duration,
    /// What the flags say of protocols.
    pub settings: Protocols,
    /// Long streams end when this is requested.
    pub shutdown: Shutdown,
}

/// Every protocol, in no order.
pub const PROTOCOLS: &[Protocol] = &[rfc::PROTOCOL, dengine::PROTOCOL, oxia::PROTOCOL];

/// Those that are to be served.
pub fn enabled(settings: &Protocols) -> impl Iterator<Item = &'static Protocol> {
    PROTOCOLS.iter().filter(|protocol| settings.enabled.contains(&protocol.name))
}

/// Their services.
pub fn services(settings: &Protocols) -> Vec<Service> {
    enabled(settings).flat_map(|protocol| protocol.services).copied().collect()
}
