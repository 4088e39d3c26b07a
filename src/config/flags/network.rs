//! Entries about client connections, and about who may do what over them.

use super::Kind::{Bool, Duration, Origins, Text, Uint, Uint32};
use super::{Flag, flag};
use crate::config::tls::list;

/// What a client may ask of a connection.
pub(super) const CLIENTS: &[Flag] = &[
    flag(
        "max-txn-ops",
        "128",
        Uint(|d, v| d.limits.txn_ops_max = v),
        "Number of operations one txn may have.",
    ),
    flag(
        "max-request-bytes",
        "1572864",
        Uint(|d, v| d.limits.request_bytes_max = v),
        "Size of a request the server accepts.",
    ),
    flag(
        "max-concurrent-streams",
        "4294967295",
        Uint32(|d, v| d.streams_max = v),
        "Number of streams one client connection may have open.",
    ),
    flag(
        "grpc-keepalive-min-time",
        "5s",
        Duration(|d, v| d.keepalive.min_time = v),
        "A client that pings more often than this is sent away.",
    ),
    flag(
        "grpc-keepalive-interval",
        "2h",
        Duration(|d, v| d.keepalive.interval = Some(v).filter(|v| !v.is_zero())),
        "Idle time after which the server pings a client; 0 is never.",
    ),
    flag(
        "grpc-keepalive-timeout",
        "20s",
        Duration(|d, v| d.keepalive.timeout = Some(v).filter(|v| !v.is_zero())),
        "How long the answer to a ping may take before the connection is closed; 0 is for ever.",
    ),
    flag(
        "enable-grpc-gateway",
        "true",
        Bool(|d, v| d.json_gateway = v),
        "Serve the API as JSON over HTTP too.",
    ),
    flag("socket-reuse-port", "false", Bool(|d, v| d.sockets.reuse_port = v), "Listen with SO_REUSEPORT."),
    flag(
        "socket-reuse-address",
        "false",
        Bool(|d, v| d.sockets.reuse_address = v),
        "Listen with SO_REUSEADDR.",
    ),
];

/// Who may do what.
pub(super) const SECURITY: &[Flag] = &[
    flag("cert-file", "", Text(|d, v| d.tls.client.cert = v), "Certificate for clients."),
    flag("key-file", "", Text(|d, v| d.tls.client.key = v), "Key of the certificate for clients."),
    flag("trusted-ca-file", "", Text(|d, v| d.tls.client.trusted_ca = v), "CA of client certificates."),
    flag(
        "client-cert-auth",
        "false",
        Bool(|d, v| d.tls.client.client_cert_auth = v),
        "Demand certificates of clients.",
    ),
    flag(
        "client-cert-file",
        "",
        Text(|d, v| d.tls.client.client_cert = v),
        "Certificate for connections that the server makes to itself.",
    ),
    flag("client-key-file", "", Text(|d, v| d.tls.client.client_key = v), "Key of client-cert-file."),
    flag("client-crl-file", "", Text(|d, v| d.tls.client.crl = v), "Revoked client certificates."),
    flag(
        "client-cert-allowed-hostname",
        "",
        Text(|d, v| d.tls.client.allowed_hosts = list(&v)),
        "Host names that client certificates may have.",
    ),
    flag("auto-tls", "false", Bool(|d, v| d.tls.client.auto = v), "Make a certificate for clients."),
    flag("peer-cert-file", "", Text(|d, v| d.tls.peer.cert = v), "Certificate for other members."),
    flag("peer-key-file", "", Text(|d, v| d.tls.peer.key = v), "Key of the certificate for other members."),
    flag(
        "peer-trusted-ca-file",
        "",
        Text(|d, v| d.tls.peer.trusted_ca = v),
        "CA of other members' certificates.",
    ),
    flag(
        "peer-client-cert-auth",
        "false",
        Bool(|d, v| d.tls.peer.client_cert_auth = v),
        "Demand certificates of other members.",
    ),
    flag(
        "peer-client-cert-file",
        "",
        Text(|d, v| d.tls.peer.client_cert = v),
        "Certificate for connections to other members.",
    ),
    flag("peer-client-key-file", "", Text(|d, v| d.tls.peer.client_key = v), "Key of peer-client-cert-file."),
    flag("peer-crl-file", "", Text(|d, v| d.tls.peer.crl = v), "Revoked certificates of members."),
    flag(
        "peer-cert-allowed-cn",
        "",
        Text(|d, v| d.tls.peer.allowed_names = list(&v)),
        "Common names that members' certificates may have.",
    ),
    flag(
        "peer-cert-allowed-hostname",
        "",
        Text(|d, v| d.tls.peer.allowed_hosts = list(&v)),
        "Host names that members' certificates may have.",
    ),
    flag("peer-auto-tls", "false", Bool(|d, v| d.tls.peer.auto = v), "Make a certificate for other members."),
    flag(
        "peer-skip-client-san-verification",
        "false",
        Bool(|d, v| d.tls.peer.skip_address_check = v),
        "Do not check addresses in members' certificates.",
    ),
    flag(
        "self-signed-cert-validity",
        "1",
        Uint(|d, v| d.tls.self_signed_years = v),
        "Years for which certificates made by the server are valid.",
    ),
    flag(
        "cipher-suites",
        "",
        Text(|d, v| d.cipher_suites = v),
        "Suites for TLS 1.2, by their IANA names; all if empty.",
    ),
    flag(
        "tls-min-version",
        "TLS1.2",
        Text(|d, v| d.tls_min_version = v),
        "Oldest TLS version, TLS1.2 or TLS1.3.",
    ),
    flag("tls-max-version", "", Text(|d, v| d.tls_max_version = v), "Newest TLS version, TLS1.2 or TLS1.3."),
    flag(
        "cors",
        "*",
        Origins(|d, v| d.cors = v),
        "Comma-separated origins, as URLs with ports, that browsers may come from; * is all.",
    ),
    flag(
        "host-whitelist",
        "*",
        Text(|d, v| d.host_whitelist = v),
        "Comma-separated host names that HTTP requests without TLS may use; * is all.",
    ),
    flag(
        "auth-token",
        "simple",
        Text(|d, v| d.auth_token = v),
        "Kind of token that users are given: simple, or jwt with pub-key, priv-key, sign-method and ttl.",
    ),
    flag(
        "auth-token-ttl",
        "300",
        Uint(|d, v| d.auth_token_ttl_secs = v),
        "Seconds for which a simple token is valid after its last use.",
    ),
    flag(
        "bcrypt-cost",
        "10",
        Uint(|d, v| d.bcrypt_cost = v),
        "Work to hash a password, a power of 2 from 4 to 31.",
    ),
];
