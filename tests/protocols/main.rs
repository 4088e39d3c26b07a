//! Black-box tests of the protocols beside etcd's: a running server, each protocol's wire form, and etcd's API beside it.

#[path = "../support/cluster/mod.rs"]
mod cluster;
#[path = "../support/mod.rs"]
mod support;

mod dengine;
mod oxia;
mod rfc;
