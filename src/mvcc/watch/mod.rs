//! Watches on the keyspace.
