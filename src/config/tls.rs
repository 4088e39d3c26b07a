//! TLS as it was asked for: files, and rules for handshakes. Names of cipher suites are Go's, as etcd takes them.
//! Pure: files are opened by `tls`. Filled by the flag table, checked by `verify`.

use super::value::ValueError;

/// TLS of all listeners.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// For clients, and for metrics.
    pub client: TlsFiles,
    /// For other members.
    pub peer: TlsFiles,
    /// What both have in common.
    pub rules: TlsRules,
    /// Years for which certificates that the server makes are valid.
    pub self_signed_years: u64,
}

/// Files of one kind of listener, and whom they let in. Empty paths are absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFiles {
    /// Certificate and what leads to its root, PEM.
    pub cert: String,
    /// Its private key, PEM.
    pub key: String,
    /// Certificate that this server shows where it is the client; `cert` if absent.
    pub client_cert: String,
    /// Its private key.
    pub client_key: String,
    /// Roots that a client's certificate must lead to, PEM. If present, clients must show one.
    pub trusted_ca: String,
    /// Whether clients must show a certificate, and are then called by its common name.
    pub client_cert_auth: bool,
    /// Revoked certificates, DER or PEM.
    pub crl: String,
    /// Common names of which a client's certificate must have one; empty for any.
    pub allowed_names: Vec<String>,
    /// Host names and addresses of which a client's certificate must be valid for one; empty for any.
    pub allowed_hosts: Vec<String>,
    /// Whether the server makes the certificate itself when there is none.
    pub auto: bool,
    /// Whether a client may come from an address that its certificate does not name.
    pub skip_address_check: bool,
}

impl TlsFiles {
    /// Whether there is neither certificate nor key.
    pub fn is_empty(&self) -> bool {
        self.cert.is_empty() && self.key.is_empty()
    }
}

/// Versions and cipher suites.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsRules {
    /// Oldest version.
    pub min: TlsVersion,
    /// Newest version; the newest there is if absent.
    pub max: Option<TlsVersion>,
    /// IANA numbers of the suites for TLS 1.2; empty for all. Those of TLS 1.3 cannot be chosen.
    pub suites: Vec<u16>,
    /// Whether suites were named that are too weak to be supported.
    pub has_left_out: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// Reads a version; the empty text stands for no choice.
    pub(super) fn parse(text: &str) -> Result<Option<TlsVersion>, ValueError> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
            "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
            _ => Err(ValueError(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)"))),
        }
    }
}

impl TlsRules {
    /// Reads versions and suites, and checks them against each other, in etcd's order and words. Suites that Go has and
    /// rustls has not are left out, which only makes the choice stricter; some must remain.
    pub(super) fn parse(min: &str, max: &str, suites: &str) -> Result<TlsRules, ValueError> {
        let (min_text, max_text, suites_text) = (min, max, suites);
        let (min, max) = (TlsVersion::parse(min)?, TlsVersion::parse(max)?);
        if max.is_some() && min > max {
            return Err(ValueError(format!(
                "min version ({min_text}) is greater than max version ({max_text})"
            )));
        }
        let names = list(suites);
        if min == Some(TlsVersion::Tls13) && !names.is_empty() {
            return Err(ValueError("cipher suites cannot be configured when only TLS1.3 is enabled".into()));
        }
        let known = names.iter().map(|name| suite(name)).collect::<Result<Vec<_>, _>>()?;
        let suites: Vec<u16> = known.iter().copied().flatten().collect();
        if suites.is_empty() && !names.is_empty() {
            return Err(ValueError(format!("none of the TLS cipher suites {suites_text:?} is supported")));
        }
        let has_left_out = known.contains(&None);
        Ok(TlsRules { min: min.unwrap_or_default(), max, suites, has_left_out })
    }

    /// Whether HTTP can be served with these suites: HTTP/2 demands one of two.
    pub(super) fn check_http2(&self) -> Result<(), ValueError> {
        if self.suites.is_empty() || self.suites.iter().any(|suite| HTTP2_SUITES.contains(suite)) {
            return Ok(());
        }
        Err(ValueError(
            "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher (need at least \
             one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)"
                .into(),
        ))
    }
}

/// Items of a comma-separated text.
pub(super) fn list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|item| item.trim().to_owned()).collect() }
}

/// The number of a suite; `None` for one that is not supported.
fn suite(name: &str) -> Result<Option<u16>, ValueError> {
    if let Some((_, number)) = SUITES.iter().find(|(known, _)| *known == name) {
        return Ok(Some(*number));
    }
    if WEAK_SUITES.contains(&name) {
        return Ok(None);
    }
    Err(ValueError(format!("unexpected TLS cipher suite {name:?}")))
}

/// HTTP/2 demands one of these.
const HTTP2_SUITES: [u16; 2] = [0xc02f, 0xc02b];

/// Suites with an authenticated cipher and forward secrecy. The last two are older names.
const SUITES: [(&str, u16); 11] = [
    ("TLS_AES_128_GCM_SHA256", 0x1301),
    ("TLS_AES_256_GCM_SHA384", 0x1302),
    ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", 0xcca8),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", 0xcca9),
];

/// Suites that Go has, and that nobody should use: CBC, RC4, 3DES, or no forward secrecy.
const WEAK_SUITES: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(min: &str, max: &str, suites: &str) -> Result<TlsRules, String> {
        TlsRules::parse(min, max, suites).map_err(|e| e.0)
    }

    #[test]
    fn versions_and_suites_fit_together() {
        let rules = read("", "", "").unwrap();
        assert_eq!((rules.min, rules.max, rules.suites), (TlsVersion::Tls12, None, vec![]));
        assert_eq!(read("TLS1.3", "TLS1.3", "").unwrap().max, Some(TlsVersion::Tls13));
        let suites = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        assert_eq!(read("TLS1.2", "", suites).unwrap().suites, [0xc02f, 0xcca8]);
        for (min, max, suites, error) in [
            ("TLS1.3", "TLS1.2", "", "min version (TLS1.3) is greater than max version (TLS1.2)"),
            ("SSL3", "", "", "unexpected TLS version \"SSL3\" (must be one of: TLS1.2, TLS1.3)"),
            ("TLS1.3", "", suites, "cipher suites cannot be configured when only TLS1.3 is enabled"),
            ("", "", "x", "unexpected TLS cipher suite \"x\""),
            (
                "",
                "",
                "TLS_RSA_WITH_RC4_128_SHA",
                "none of the TLS cipher suites \"TLS_RSA_WITH_RC4_128_SHA\" is supported",
            ),
        ] {
            assert_eq!(read(min, max, suites), Err(error.into()));
        }
        let some =
            read("", "", "TLS_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap();
        assert_eq!((some.suites, some.has_left_out), (vec![0xc02f], true));
        assert!(read("", "", suites).unwrap().check_http2().is_ok());
        let lacking = read("", "", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384").unwrap();
        assert!(lacking.check_http2().unwrap_err().0.starts_with("http2: "));
    }
}
