//! The Oxia's early client protocol, over the wire.
