//! Certificates, keys, roots and revocations as they lie in files. Every error names its file.

use super::Error;
use crate::config::TlsFiles;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use std::collections::HashSet;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// Where systems keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn read(path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::new(format!("open {path}: no such file or directory")),
        _ => Error::new(format!("open {path}: {error}")),
    })
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| Error::new(format!("{path}: {error}")))?;
    if found.is_empty() {
        return Err(Error::new(format!("tls: failed to find any PEM data in certificate input {path}")));
    }
    Ok(found)
}

/// A certificate with its chain, and the key that belongs to it.
pub(super) fn certified_key(cert: &str, key: &str) -> Result<CertifiedKey, Error> {
    let chain = certificates(cert)?;
    let bytes = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| Error::new(format!("tls: failed to find any PEM data in key input {key}")))?;
    let private = any_supported_type(&private)
        .map_err(|error| Error::new(format!("tls: failed to parse private key {key}: {error}")))?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(Error::new(format!("tls: private key does not match public key ({cert}, {key})")))
        }
        // Clients judge what else may be wrong with the certificate.
        _ => Ok(certified),
    }
}

/// Trusted certificates, for rustls and as they are.
type Roots = (RootCertStore, Vec<CertificateDer<'static>>);

/// The roots of clients' certificates, if clients must show one: those of the file, or without a file the system's.
pub(super) fn roots(files: &TlsFiles) -> Result<Option<Roots>, Error> {
    if files.trusted_ca.is_empty() && !files.client_cert_auth {
        return Ok(None);
    }
    let there = trusted(files);
    let path =
        there.ok_or_else(|| Error::new("clients must show certificates, and there are no roots to trust"))?;
    roots_in(path).map(Some)
}

/// The roots of servers' certificates: those of the file, or without a file the system's.
pub(super) fn roots_of_servers(files: &TlsFiles) -> Result<Roots, Error> {
    let path = trusted(files);
    roots_in(path.ok_or_else(|| Error::new("members show certificates, and there are no roots to trust"))?)
}

fn trusted(files: &TlsFiles) -> Option<&str> {
    if files.trusted_ca.is_empty() {
        SYSTEM_ROOTS.into_iter().find(|path| std::path::Path::new(path).exists())
    } else {
        Some(&files.trusted_ca)
    }
}

fn roots_in(path: &str) -> Result<Roots, Error> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(path)?;
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| Error::new(format!("{path}: {error}")))?;
    }
    Ok((roots, certificates))
}

/// Certificates that nobody may use any more.
pub(super) enum Revocations {
    /// Their serial numbers, without leading zeros.
    Serials(HashSet<Vec<u8>>),
    /// The list could not be read yet.
    Unreadable(Error),
}

/// Reads a list, DER or PEM. As at etcd, its signature and its date are not looked at: who may write the file decides.
pub(super) fn revocations(path: &str) -> Result<Revocations, Error> {
    let serials = serials(&read(path)?);
    serials
        .map(Revocations::Serials)
        .map_err(|error| Error::new(format!("{path}: x509: malformed crl: {error}")))
}

fn serials(bytes: &[u8]) -> Result<HashSet<Vec<u8>>, String> {
    let der = CertificateRevocationListDer::from_pem_slice(bytes);
    let der = der.as_ref().map_or(bytes, |der| der.as_ref());
    let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| error.to_string())?;
    Ok(list.iter_revoked_certificates().map(|entry| entry.serial().to_bytes_be()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = serials(&bytes);
            let mut framed = vec![0x30, 0x81, bytes.len() as u8];
            framed.extend(&bytes);
            let _ = serials(&framed);
        }
    }
}
