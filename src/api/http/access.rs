//! What comes before every path on the client port: old paths, host names (H-14), origins of browsers (H-13).

use super::Options;
use crate::api::caller::CommonName;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, ORIGIN,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use std::collections::HashSet;

const ANY: &str = "*";
/// Where the gateway is.
const PREFIX: &str = "/v3/";
/// What a client reads who shows a certificate there while users are on.
const NAME_IGNORED: &str =
    "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
/// Where etcd 3.3 had the gateway.
const OLD_PREFIX: &str = "/v3beta/";

/// Why a request is not let in.
#[derive(Debug)]
pub struct Refused {
    /// Status of the answer.
    pub status: StatusCode,
    /// Its text.
    pub text: String,
}

/// Who may come; an empty set or `*` is everyone.
pub struct Access {
    are_users_on: Box<dyn Fn() -> bool + Send + Sync>,
    origins: HashSet<String>,
    hosts: HashSet<String>,
}

impl Access {
    /// The rules that were configured.
    pub fn new(options: &Options, are_users_on: impl Fn() -> bool + Send + Sync + 'static) -> Access {
        let set = |names: &[String]| names.iter().cloned().collect();
        Access {
            are_users_on: Box::new(are_users_on),
            origins: set(&options.origins),
            hosts: set(&options.hosts),
        }
    }

    /// Lets a request in, its path brought up to date; returns what every answer's header says.
    pub fn admit<B>(&self, request: &mut Request<B>, secure: bool) -> Result<HeaderMap, Refused> {
        if let Some(uri) = renewed(request.uri()) {
            *request.uri_mut() = uri;
        }
        if !secure {
            let host = host(request);
            if !allows(&self.hosts, host) {
                tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
                return Err(Refused { status: StatusCode::MISDIRECTED_REQUEST, text: misdirected(host) });
            }
        }
        if self.is_misled(request) {
            return Err(Refused { status: StatusCode::BAD_REQUEST, text: NAME_IGNORED.to_owned() });
        }
        Ok(self.cors(request.headers().get(ORIGIN)))
    }

    /// Whether the client may believe that the gateway knows it by its certificate (H-12).
    fn is_misled<B>(&self, request: &Request<B>) -> bool {
        let has_name = request.extensions().get::<CommonName>().is_some_and(|name| !name.0.is_empty());
        has_name && request.uri().path().starts_with(PREFIX) && (self.are_users_on)()
    }

    fn cors(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let origin = if allows(&self.origins, ANY) {
            HeaderValue::from_static(ANY)
        } else {
            match origin {
                Some(origin) if origin.to_str().is_ok_and(|origin| self.origins.contains(origin)) => {
                    origin.clone()
                }
                _ => return headers,
            }
        };
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let fields = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields);
        headers
    }
}

fn allows(names: &HashSet<String>, name: &str) -> bool {
    names.is_empty() || names.contains(ANY) || names.contains(name)
}

/// The path as it is called today, if it is an old one.
fn renewed(uri: &Uri) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(OLD_PREFIX)?;
    PathAndQuery::try_from(format!("/v3/{rest}")).ok().map(Uri::from)
}

/// The host that the request names, without its port.
fn host<B>(request: &Request<B>) -> &str {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host =
        named.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or_default();
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return address;
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// What a user reads who comes under another name.
fn misdirected(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
           - e.g. etcd --host-whitelist {host:?}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: &str) -> Request<()> {
        Request::builder().uri(uri).header(HOST, host).body(()).unwrap()
    }

    #[test]
    fn h_14_the_host_is_named_without_its_port() {
        for (given, expected) in [
            ("a.example:2379", "a.example"),
            ("a.example", "a.example"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("a::", "a::"),
        ] {
            assert_eq!(host(&request("/", given)), expected);
        }
    }

    #[test]
    fn h_1_old_paths_are_renewed() {
        assert_eq!(renewed(&"/v3beta/kv/put?a=b".parse().unwrap()).unwrap(), "/v3/kv/put?a=b");
        assert_eq!(renewed(&"/v3alpha/kv/put".parse().unwrap()), None);
        assert_eq!(renewed(&"/v3beta".parse().unwrap()), None);
    }

    #[test]
    fn h_13_h_14_names_that_are_not_listed_are_left_out() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let options = Options { gateway: true, origins: names(&["http://a"]), hosts: names(&["localhost"]) };
        let access = Access::new(&options, || true);
        let mut known = request("/", "localhost:1");
        known.headers_mut().insert(ORIGIN, HeaderValue::from_static("http://a"));
        assert_eq!(access.admit(&mut known, false).unwrap()[ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
        assert!(access.admit(&mut request("/", "localhost"), false).unwrap().is_empty());
        assert_eq!(access.admit(&mut request("/", "other"), false).unwrap_err().status, 421);
        assert!(access.admit(&mut request("/", "other"), true).is_ok());
    }

    #[test]
    fn h_12_names_in_certificates_are_refused_at_the_gateway_alone() {
        let options = Options { gateway: true, origins: Vec::new(), hosts: Vec::new() };
        let access = |are_users_on: bool| Access::new(&options, move || are_users_on);
        let named = |path| {
            let mut request = request(path, "localhost");
            request.extensions_mut().insert(CommonName("ann".into()));
            request
        };
        assert_eq!(access(true).admit(&mut named("/v3/kv/put"), true).unwrap_err().status, 400);
        assert_eq!(access(true).admit(&mut named("/v3beta/kv/put"), true).unwrap_err().status, 400);
        assert!(access(false).admit(&mut named("/v3/kv/put"), true).is_ok());
        assert!(access(true).admit(&mut named("/health"), true).is_ok());
        assert!(access(true).admit(&mut request("/v3/kv/put", "localhost"), true).is_ok());
    }
}
