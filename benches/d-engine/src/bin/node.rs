//! One node of a d-engine 0.2.4 with its own storage in files (`FileStorageEngine`, `FileStateMachine`).
//!
//! `node CONFIG DIR`: CONFIG is TOML as the d-engine has it, DIR gets the data. It runs until it is killed.

use std::path::PathBuf;
use std::sync::Arc;

use d_engine::{FileStateMachine, FileStorageEngine, StandaloneEngine};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(config), Some(dir)) = (words.next(), words.next()) else {
        return Err("usage: node CONFIG DIR".into());
    };
    let dir = PathBuf::from(dir);
    let storage = Arc::new(FileStorageEngine::new(dir.join("log"))?);
    let machine = Arc::new(FileStateMachine::new(dir.join("state")).await?);
    let (_running, shutdown) = watch::channel(());
    StandaloneEngine::run_custom(storage, machine, shutdown, Some(&config)).await?;
    Ok(())
}
