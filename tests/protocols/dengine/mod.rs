//! The d-engine's client protocol, over the wire.
