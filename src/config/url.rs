//! URLs of members and listeners: a scheme and an address, never a path. Their text takes part in the member id, so
//! it is kept as written (the `url` crate would drop default ports and rewrite hosts, hence this small reader).
//! Pure apart from `same_addresses`, which may ask the resolver. Called by the flag table and by `verify`.

use super::value::ValueError;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// How an address is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// TCP in the clear.
    Http,
    /// TCP with TLS.
    Https,
    /// A Unix socket in the clear.
    Unix,
    /// A Unix socket with TLS.
    Unixs,
}

const SCHEMES: [(&str, Scheme); 4] =
    [("http", Scheme::Http), ("https", Scheme::Https), ("unix", Scheme::Unix), ("unixs", Scheme::Unixs)];

/// An address that others are told, such as `http://node1.example:2380`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointUrl {
    scheme: Scheme,
    /// `host:port` of TCP, the rest of the URL for a Unix socket.
    address: String,
}

impl EndpointUrl {
    /// Reads one URL; spaces around it are dropped.
    pub fn parse(text: &str) -> Result<EndpointUrl, ValueError> {
        let text = text.trim();
        let bad_scheme = || ValueError(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        let (scheme, address) = text.split_once("://").ok_or_else(bad_scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let scheme = SCHEMES.iter().find(|(name, _)| *name == scheme).ok_or_else(bad_scheme)?.1;
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            check_tcp_address(text, address)?;
        }
        Ok(EndpointUrl { scheme, address: address.to_owned() })
    }

    /// Reads a comma-separated list, sorted and each URL once, as etcd does; the empty text is the empty list.
    pub fn parse_list(text: &str) -> Result<Vec<EndpointUrl>, ValueError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let urls: BTreeSet<EndpointUrl> =
            text.split(',').map(EndpointUrl::parse).collect::<Result<_, _>>()?;
        Ok(urls.into_iter().collect())
    }

    /// How the address is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the path of a Unix socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host of TCP, without the brackets of an IPv6 address; the path of a Unix socket.
    pub fn host(&self) -> &str {
        self.host_and_port().map_or(&self.address, |(host, _)| host)
    }

    fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        Some((host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host), port.parse().ok()?))
    }

    /// Whether it is TCP and names no host.
    pub(super) fn has_empty_host(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https) && self.address.starts_with(':')
    }

    /// Whether it is any IPv4 address of this machine.
    pub(super) fn is_wildcard(&self) -> bool {
        self.host_and_port().is_some_and(|(host, _)| host == "0.0.0.0")
    }

    /// A URL with the port of this one.
    pub(super) fn on_host(&self, scheme: Scheme, host: IpAddr) -> Option<EndpointUrl> {
        let address = SocketAddr::new(host, self.host_and_port()?.1).to_string();
        Some(EndpointUrl { scheme, address })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCHEMES.iter().find(|(_, scheme)| *scheme == self.scheme).map_or("", |(name, _)| name);
        write!(f, "{name}://{}", self.address)
    }
}

fn check_tcp_address(text: &str, address: &str) -> Result<(), ValueError> {
    let fail = |what: &str| Err(ValueError(format!("{what}: {text}")));
    if let Some(at) = address.find(['/', '?', '#']) {
        let what = if address[at..].starts_with('/') { "a path" } else { "a query or fragment" };
        return fail(&format!("URL must not contain {what}"));
    }
    if address.contains('@') || address.contains(char::is_whitespace) {
        return fail("URL must not contain user information or spaces");
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return fail("URL address does not have the form \"host:port\"");
    };
    if host.starts_with('[') != host.ends_with(']') || (host.contains(':') && !host.starts_with('[')) {
        return fail("URL address does not have the form \"host:port\"");
    }
    match port.parse::<u16>() {
        Ok(_) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
        _ => fail(&format!("invalid port {port:?} after host")),
    }
}

/// An address to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenUrl {
    url: EndpointUrl,
    place: Place,
}

/// Where to bind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// An IP address of this machine.
    Tcp(SocketAddr),
    /// The path of a socket; `unix://host:port` is a file `host:port` in the working directory.
    Unix(PathBuf),
}

impl ListenUrl {
    /// Accepts an IP address, `localhost`, which is 127.0.0.1, or the path of a Unix socket.
    pub fn new(url: EndpointUrl) -> Result<ListenUrl, String> {
        if matches!(url.scheme, Scheme::Unix | Scheme::Unixs) {
            let place = Place::Unix(url.address.clone().into());
            return if url.address.is_empty() {
                Err(format!("no path in {url}"))
            } else {
                Ok(ListenUrl { url, place })
            };
        }
        let socket = url.host_and_port().and_then(|(host, port)| match host {
            "localhost" => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            host => host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)),
        });
        match socket {
            Some(socket) => Ok(ListenUrl { url, place: Place::Tcp(socket) }),
            None => Err(format!("expected IP in URL for binding ({url})")),
        }
    }

    /// Where to bind.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether connections have TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.url.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// The host that a certificate for this listener names; a Unix socket may have none.
    pub fn host(&self) -> &str {
        self.url.host_and_port().map_or("", |(host, _)| host)
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// URLs as one comma-separated text, for logs and messages.
pub fn join<T: fmt::Display>(urls: &[T]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whether two lists name the same addresses, if need be after asking the resolver about their hosts.
pub fn same_addresses(a: &[EndpointUrl], b: &[EndpointUrl]) -> bool {
    let texts = |urls: &[EndpointUrl]| urls.iter().cloned().collect::<BTreeSet<_>>();
    if texts(a) == texts(b) {
        return true;
    }
    let resolved = |urls: &[EndpointUrl]| -> Option<BTreeSet<(Scheme, SocketAddr)>> {
        urls.iter().map(|u| Some((u.scheme, u.address.to_socket_addrs().ok()?.next()?))).collect()
    };
    a.len() == b.len() && resolved(a).is_some_and(|a| resolved(b) == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(text: &str) -> String {
        EndpointUrl::parse(text).map(|u| u.to_string()).unwrap_or_else(|e| e.0)
    }

    #[test]
    fn urls_keep_their_text_and_bad_ones_are_named() {
        for text in [
            "http://127.0.0.1:2379",
            "https://a.example:80",
            "http://[::1]:2380",
            "unix:///run/k.sock",
            "http://:1",
        ] {
            assert_eq!(message(text), text);
        }
        assert_eq!(message(" HTTP://h:1 "), "http://h:1");
        for (text, error) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("ftp://h:1", "URL scheme must be http, https, unix, or unixs: ftp://h:1"),
            ("http://127.0.0.1", "URL address does not have the form \"host:port\": http://127.0.0.1"),
            ("http://::1:1", "URL address does not have the form \"host:port\": http://::1:1"),
            ("http://[::1:1", "URL address does not have the form \"host:port\": http://[::1:1"),
            ("http://h:1/", "URL must not contain a path: http://h:1/"),
            ("http://h:1?x", "URL must not contain a query or fragment: http://h:1?x"),
            ("http://h:x", "invalid port \"x\" after host: http://h:x"),
            ("http://h:+1", "invalid port \"+1\" after host: http://h:+1"),
            ("http://h:99999", "invalid port \"99999\" after host: http://h:99999"),
            ("http://u@h:1", "URL must not contain user information or spaces: http://u@h:1"),
        ] {
            assert_eq!(message(text), error);
        }
        assert_eq!(EndpointUrl::parse_list(""), Ok(vec![]));
        assert_eq!(
            EndpointUrl::parse_list("http://b:2,http://a:1, http://b:2").map(|l| join(&l)),
            Ok("http://a:1,http://b:2".into())
        );
        assert!(EndpointUrl::parse_list(",").is_err());
    }

    #[test]
    fn listeners_need_an_ip_address_or_a_path() {
        let listen = |text| -> Result<String, String> {
            match ListenUrl::new(EndpointUrl::parse(text).unwrap())?.place {
                Place::Tcp(address) => Ok(address.to_string()),
                Place::Unix(path) => Ok(path.display().to_string()),
            }
        };
        assert_eq!(listen("http://localhost:2379"), Ok("127.0.0.1:2379".into()));
        assert_eq!(listen("http://[::]:1"), Ok("[::]:1".into()));
        assert_eq!(
            listen("http://example.com:1"),
            Err("expected IP in URL for binding (http://example.com:1)".into())
        );
        assert_eq!(listen("http://:1"), Err("expected IP in URL for binding (http://:1)".into()));
        assert_eq!(listen("https://127.0.0.1:1"), Ok("127.0.0.1:1".into()));
        assert_eq!(listen("unix://localhost:2379"), Ok("localhost:2379".into()));
        assert_eq!(listen("unixs:///run/k.sock"), Ok("/run/k.sock".into()));
        assert!(listen("unix://").is_err());
    }

    #[test]
    fn the_same_address_may_be_written_in_two_ways() {
        let list = |text| EndpointUrl::parse_list(text).unwrap();
        assert!(same_addresses(&list("http://a:1,http://b:2"), &list("http://b:2,http://a:1")));
        assert!(same_addresses(&list("http://0:1"), &list("http://0.0.0.0:1")));
        assert!(!same_addresses(&list("http://127.0.0.1:1"), &list("http://127.0.0.1:2")));
        assert!(!same_addresses(&list("http://127.0.0.1:1"), &list("https://127.0.0.1:1")));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_read_again(text in "(https?|unixs?)?:?/?/?[a-z0-9:@/?#.\\[\\] ]{0,20}") {
            if let Ok(url) = EndpointUrl::parse(&text) {
                prop_assert_eq!(EndpointUrl::parse(&url.to_string()), Ok(url.clone()));
                let _ = ListenUrl::new(url);
            }
        }
    }
}
