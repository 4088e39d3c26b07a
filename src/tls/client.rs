//! stand-in
use std::io;
use tokio::net::TcpStream;
/// stand-in
#[derive(Clone)]
pub struct Connector {}
impl Connector {
    /// stand-in
    pub async fn connect(&self, stream: TcpStream, _host: &str) -> io::Result<TcpStream> {
        Ok(stream)
    }
}
