//! Protocol adapters: thin translations between a wire protocol and the engine's vocabulary.
//!
//! An adapter is a folder that speaks one protocol. It may use `engine`, `types`, `config` and `pb`, nothing below them.
//! To add one: its `.proto` files, its folder, one entry in [`grpc::Front`].

pub mod caller;
mod coalesce;
pub mod connection;
mod detect;
pub mod door;
pub mod etcd;
pub mod gateway;
pub mod grpc;
mod guard;
pub mod http;
pub mod listen;
