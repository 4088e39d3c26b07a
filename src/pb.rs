//! Generated code of the wire protocols, one module per protobuf package. No hand-written types here.
#![allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]

/// Key-value pairs and events of etcd.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Services and messages of etcd.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// The standard gRPC health protocol.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
