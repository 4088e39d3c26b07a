//! Who a verified certificate says its owner is, and whether that one may come in. The words are etcd's.

use super::Error;
use super::material::Revocations;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What a client's certificates say.
#[derive(Debug)]
pub(super) struct Identity {
    leaf: CertificateDer<'static>,
    /// Serial numbers of the whole chain, without leading zeros.
    serials: Vec<Vec<u8>>,
    /// The last common name of the subject.
    pub common_name: Option<Arc<str>>,
    pub addresses: Vec<IpAddr>,
    pub dns_names: Vec<String>,
}

impl Identity {
    /// Reads the certificates that a client has shown, its own first.
    pub fn read(chain: &[CertificateDer<'_>]) -> Result<Identity, Error> {
        let unreadable = || Error::new("tls: failed to parse certificate from client");
        let leaf = chain.first().ok_or_else(unreadable)?;
        let mut identity = Identity {
            leaf: leaf.clone().into_owned(),
            serials: Vec::with_capacity(chain.len()),
            common_name: None,
            addresses: Vec::new(),
            dns_names: Vec::new(),
        };
        for (n, der) in chain.iter().enumerate() {
            let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
            identity.serials.push(certificate.serial.to_bytes_be());
            if n == 0 {
                identity.read_names(&certificate);
            }
        }
        Ok(identity)
    }

    fn read_names(&mut self, certificate: &X509Certificate<'_>) {
        let name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
        self.common_name = name.filter(|name| !name.is_empty()).map(Arc::from);
        let Ok(Some(names)) = certificate.subject_alternative_name() else { return };
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
                _ => {}
            }
        }
    }

    /// Whether the certificate has one of the names, or is valid for one of the hosts; everyone may if there are none.
    pub fn check_allowed(&self, names: &[String], hosts: &[String]) -> Result<(), Error> {
        let named = || names.iter().any(|name| self.common_name.as_deref().unwrap_or_default() == name);
        let valid = || hosts.iter().any(|host| self.is_valid_for(host));
        if (names.is_empty() || named()) && (hosts.is_empty() || valid()) {
            return Ok(());
        }
        Err(Error::new("client certificate authentication failed"))
    }

    fn is_valid_for(&self, host: &str) -> bool {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let (Ok(certificate), Ok(name)) =
            (ParsedCertificate::try_from(&self.leaf), ServerName::try_from(host))
        else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }

    /// Whether the client comes from a host that its certificate names; from anywhere if it names none. Names are
    /// looked up, so a name with a wildcard matches no address.
    pub async fn check_address(&self, from: IpAddr) -> Result<(), Error> {
        let Identity { addresses, dns_names, .. } = self;
        if (addresses.is_empty() && dns_names.is_empty()) || addresses.contains(&from) {
            return Ok(());
        }
        for name in dns_names.iter().filter(|name| !name.contains('*')) {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            if found.is_ok_and(|mut found| found.any(|address| address.ip().to_canonical() == from)) {
                return Ok(());
            }
        }
        if dns_names.is_empty() {
            let valid: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let valid = valid.join(", ");
            return Err(Error::new(format!("x509: certificate is valid for {valid}, not {from}")));
        }
        let names: Vec<String> = dns_names.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(" ");
        Err(Error::new(format!("tls: \"{from}\" does not match any of DNSNames [{names}]")))
    }

    /// Whether none of the chain is revoked.
    pub fn check_revoked(&self, revocations: &Revocations) -> Result<(), Error> {
        match revocations {
            Revocations::Unreadable(error) => Err(error.clone()),
            Revocations::Serials(revoked) => match self.serials.iter().find(|s| revoked.contains(*s)) {
                Some(serial) => {
                    let serial: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                    Err(Error::new(format!("transport: certificate serial {serial} revoked")))
                }
                None => Ok(()),
            },
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate(hosts: &[&str]) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(hosts).unwrap().self_signed(&key).unwrap().der().clone()
    }

    #[tokio::test]
    async fn addresses_and_names_are_those_of_the_certificate() {
        let read = |hosts: &[&str]| Identity::read(&[certificate(hosts)]).unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!(read(&[]).check_address(here).await.is_ok());
        assert!(read(&["127.0.0.1"]).check_address(here).await.is_ok());
        let error = read(&["10.1.2.3", "::1"]).check_address(here).await.unwrap_err();
        assert_eq!(error.to_string(), "x509: certificate is valid for 10.1.2.3, ::1, not 127.0.0.1");
        let error = read(&["*.example.com"]).check_address(here).await.unwrap_err();
        assert_eq!(error.to_string(), r#"tls: "127.0.0.1" does not match any of DNSNames ["*.example.com"]"#);
        let identity = read(&["a.example.com", "10.1.2.3"]);
        for (host, expected) in
            [("A.example.com", true), ("[10.1.2.3]", true), ("b.example.com", false), ("", false)]
        {
            assert_eq!(identity.check_allowed(&[], &[host.to_owned()]).is_ok(), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_and_names_leave_it_standing(
            at in 0usize..2000, byte in any::<u8>(), host in ".{0,30}", junk in prop::collection::vec(any::<u8>(), 0..99),
        ) {
            let mut der = certificate(&["a.example.com", "10.1.2.3"]).to_vec();
            let at = at % der.len();
            der[at] = byte;
            if let Ok(identity) = Identity::read(&[der.into(), junk.clone().into()]) {
                let _ = identity.check_allowed(&[], &[host]);
            }
            let _ = Identity::read(&[junk.into()]);
        }
    }
}
