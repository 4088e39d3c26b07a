//! Oxia's early client protocol. Each test of `semantics` and `shards` is about one sentence of `docs/protocols/oxia.md`,
//! named by its word.

mod across;
mod client;
mod cluster;
mod limits;
mod model;
mod refusals;
mod repeated;
mod semantics;
mod shards;
mod users;
