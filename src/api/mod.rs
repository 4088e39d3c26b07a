//! Protocol adapters: thin translations between a wire protocol and the engine's vocabulary.
//!
//! [`protocol`] says what an adapter is, and how one is added.

pub mod caller;
mod coalesce;
pub mod connection;
mod dengine;
mod detect;
pub mod door;
pub mod etcd;
pub mod gateway;
pub mod grpc;
mod guard;
pub mod http;
pub mod listen;
mod oxia;
pub mod protocol;
mod quiet;
mod range;
mod rfc;
mod waiter;
