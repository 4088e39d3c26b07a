//! Which path is which call (H-2). The messages and the kind of streaming follow from the descriptors.

use crate::pb::DESCRIPTORS;
use http::Uri;
use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use std::collections::HashMap;

/// Paths below `/v3/`, and `Service/Method` within its package.
const TABLE: &[(&str, &str)] = &[
    ("kv/range", "etcdserverpb.KV/Range"),
    ("kv/put", "etcdserverpb.KV/Put"),
    ("kv/deleterange", "etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "etcdserverpb.KV/Txn"),
    ("kv/compaction", "etcdserverpb.KV/Compact"),
    ("watch", "etcdserverpb.Watch/Watch"),
    ("lease/grant", "etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster/MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster/MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster/MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster/MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster/MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance/Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance/MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance/Downgrade"),
    ("auth/enable", "etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "etcdserverpb.Auth/UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth/UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth/RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth/RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock/Lock"),
    ("lock/unlock", "v3lockpb.Lock/Unlock"),
    ("election/campaign", "v3electionpb.Election/Campaign"),
    ("election/proclaim", "v3electionpb.Election/Proclaim"),
    ("election/leader", "v3electionpb.Election/Leader"),
    ("election/observe", "v3electionpb.Election/Observe"),
    ("election/resign", "v3electionpb.Election/Resign"),
];

/// One call that has a path.
#[derive(Clone)]
pub struct Route {
    /// Where the call is served as gRPC.
    pub uri: Uri,
    /// What it takes.
    pub input: MessageDescriptor,
    /// What it answers.
    pub output: MessageDescriptor,
    /// Whether it takes many messages.
    pub takes_stream: bool,
    /// Whether it answers with many messages.
    pub answers_stream: bool,
}

/// All routes, by their path below `/v3/`.
pub type Routes = HashMap<&'static str, Route>;

/// Descriptors of every message that is served.
pub fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(DESCRIPTORS).expect("the build wrote the descriptors")
}

/// Makes the table of routes; the sources of both sides are part of the program.
pub fn all() -> Routes {
    let pool = descriptors();
    TABLE
        .iter()
        .map(|(path, call)| (*path, route(&pool, call).expect("the table names calls that are there")))
        .collect()
}

fn route(pool: &DescriptorPool, call: &str) -> Option<Route> {
    let (service, method) = call.split_once('/')?;
    let service = pool.get_service_by_name(service)?;
    let method: MethodDescriptor = service.methods().find(|found| found.name() == method)?;
    let path = PathAndQuery::try_from(format!("/{call}")).ok()?;
    Some(Route {
        uri: Uri::from(path),
        input: method.input(),
        output: method.output(),
        takes_stream: method.is_client_streaming(),
        answers_stream: method.is_server_streaming(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h_2_every_route_is_a_call() {
        let routes = all();
        assert_eq!(routes.len(), TABLE.len(), "a path stands once");
        let mut streams: Vec<_> =
            routes.iter().filter(|(_, r)| r.answers_stream).map(|(path, _)| *path).collect();
        streams.sort_unstable();
        assert_eq!(streams, ["election/observe", "lease/keepalive", "maintenance/snapshot", "watch"]);
        assert!(routes["watch"].takes_stream && !routes["election/observe"].takes_stream);
    }

    #[test]
    fn h_2_every_call_but_one_has_a_route() {
        let served: Vec<&str> = TABLE.iter().map(|(_, call)| *call).collect();
        let missing: Vec<String> = descriptors()
            .services()
            .flat_map(|service| {
                service.methods().map(|m| format!("{}/{}", service.full_name(), m.name())).collect::<Vec<_>>()
            })
            .filter(|call| !served.contains(&call.as_str()))
            .collect();
        let others: Vec<_> = missing.iter().filter(|call| !call.starts_with("grpc.health.v1.")).collect();
        assert_eq!(others, ["etcdserverpb.KV/RangeStream"]);
    }
}
