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
/// Users, roles and permissions of etcd.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// etcd's locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// etcd's elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// The draft of etcd's third API; its file names no package.
pub mod rfc {
    tonic::include_proto!("_");
}
/// What members say to each other.
pub mod peer {
    tonic::include_proto!("kvist.peer");
}
/// The same in a form that people can read.
pub mod wolf {
    tonic::include_proto!("wolf.raft");
}
/// The client protocol of the d-engine. Modules nest as packages do, since generated code names others by their way up.
pub mod d_engine {
    /// Keys, values and watches.
    pub mod client {
        tonic::include_proto!("d_engine.client");
    }
    /// What is said of nodes.
    pub mod common {
        tonic::include_proto!("d_engine.common");
    }
    /// Errors.
    pub mod error {
        tonic::include_proto!("d_engine.error");
    }
    /// What servers say.
    pub mod server {
        /// Discovery.
        pub mod cluster {
            tonic::include_proto!("d_engine.server.cluster");
        }
    }
}

/// Oxia's early client protocol.
pub mod oxia {
    tonic::include_proto!("io.streamnative.oxia.client");
}

/// Descriptors of etcd's and gRPC's protocols (an encoded `FileDescriptorSet`): what JSON needs to know of the messages.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
