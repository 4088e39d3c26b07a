//! Turns `proto/` into Rust with protox, so that no `protoc` is needed.

use prost::Message;
use std::path::PathBuf;

const FILES: [&str; 5] =
    ["etcd/rpc.proto", "etcd/lock.proto", "etcd/election.proto", "grpc/health.proto", "wolf/raft.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(descriptors, files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
