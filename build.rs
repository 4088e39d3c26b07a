//! Turns `proto/` into Rust with protox, so that no `protoc` is needed.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 4] = ["etcd/rpc.proto", "etcd/lock.proto", "etcd/election.proto", "grpc/health.proto"];

/// What members say to each other: no JSON is made of it.
const PEER_FILES: [&str; 2] = ["kvist/peer.proto", "wolf/raft.proto"];

/// What clients may speak beside etcd's API: no JSON is made of it.
const OTHER_FILES: [&str; 4] =
    ["d_engine/client.proto", "d_engine/cluster.proto", "oxia/client.proto", "rfc/etcd.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    // Neither are keys and values.
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(OTHER_FILES, ["proto"])?)?;
    // Entries are not copied out of the frames that they come in.
    tonic_prost_build::configure()
        .bytes(".kvist.peer")
        .compile_fds(protox::compile(PEER_FILES, ["proto"])?)?;
    Ok(())
}
