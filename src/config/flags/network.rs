//! Entries about client connections, and about who may do what over them.

use super::Kind::{Bool, Duration, Text, Uint, Uint32};
use super::{Flag, flag, nowhere, refused, tuning};

const TLS: &str = "there is no TLS, and traffic would be in the clear and unauthenticated";

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
    tuning(
        "enable-grpc-gateway",
        "true",
        Bool(|d, v| d.json_gateway = v),
        "Serve the API as JSON over HTTP too.",
    ),
    tuning("socket-reuse-port", "false", Bool(nowhere), "Listen with SO_REUSEPORT."),
    tuning("socket-reuse-address", "false", Bool(nowhere), "Listen with SO_REUSEADDR."),
];

/// Who may do what.
pub(super) const SECURITY: &[Flag] = &[
    refused("cert-file", "", Text(nowhere), TLS, "Certificate for clients."),
    refused("key-file", "", Text(nowhere), TLS, "Key of the certificate for clients."),
    refused("trusted-ca-file", "", Text(nowhere), TLS, "CA of client certificates."),
    refused("client-cert-auth", "false", Bool(nowhere), TLS, "Demand certificates of clients."),
    refused(
        "client-cert-file",
        "",
        Text(nowhere),
        TLS,
        "Certificate for connections that the server makes to itself.",
    ),
    refused("client-key-file", "", Text(nowhere), TLS, "Key of client-cert-file."),
    refused("client-crl-file", "", Text(nowhere), TLS, "Revoked client certificates."),
    refused(
        "client-cert-allowed-hostname",
        "",
        Text(nowhere),
        TLS,
        "Host names that client certificates may have.",
    ),
    refused("auto-tls", "false", Bool(nowhere), TLS, "Make a certificate for clients."),
    refused("peer-cert-file", "", Text(nowhere), TLS, "Certificate for other members."),
    refused("peer-key-file", "", Text(nowhere), TLS, "Key of the certificate for other members."),
    refused("peer-trusted-ca-file", "", Text(nowhere), TLS, "CA of other members' certificates."),
    refused("peer-client-cert-auth", "false", Bool(nowhere), TLS, "Demand certificates of other members."),
    refused("peer-client-cert-file", "", Text(nowhere), TLS, "Certificate for connections to other members."),
    refused("peer-client-key-file", "", Text(nowhere), TLS, "Key of peer-client-cert-file."),
    refused("peer-crl-file", "", Text(nowhere), TLS, "Revoked certificates of members."),
    refused(
        "peer-cert-allowed-cn",
        "",
        Text(nowhere),
        TLS,
        "Common names that members' certificates may have.",
    ),
    refused(
        "peer-cert-allowed-hostname",
        "",
        Text(nowhere),
        TLS,
        "Host names that members' certificates may have.",
    ),
    refused("peer-auto-tls", "false", Bool(nowhere), TLS, "Make a certificate for other members."),
    tuning(
        "peer-skip-client-san-verification",
        "false",
        Bool(nowhere),
        "Do not check addresses in members' certificates.",
    ),
    tuning(
        "self-signed-cert-validity",
        "1",
        Uint(nowhere),
        "Years for which certificates made by the server are valid.",
    ),
    tuning("cipher-suites", "", Text(nowhere), "TLS cipher suites."),
    tuning("tls-min-version", "TLS1.2", Text(nowhere), "Oldest TLS version."),
    tuning("tls-max-version", "", Text(nowhere), "Newest TLS version."),
    refused(
        "cors",
        "*",
        Text(nowhere),
        "every origin would be served",
        "Origins that browsers may come from.",
    ),
    refused(
        "host-whitelist",
        "*",
        Text(nowhere),
        "every host name would be served",
        "Host names that requests may use.",
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
