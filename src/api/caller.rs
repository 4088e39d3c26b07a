//! What a connection knows of its client. `listen` puts it into the extensions of every request; protocols read it there.

use std::sync::Arc;

/// Common name of the verified certificate that the client of this connection has shown; absent without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonName(pub Arc<str>);
