//! The RFC draft of etcd v3, over the wire.
