//! Certificates that a server makes for itself: `--auto-tls` and `--peer-auto-tls`. They encrypt, and prove nothing.

use super::Error;
use crate::config::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P521_SHA512, SanType,
};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The files to use: `files` if there are any, else those in `dir`, made if they are not there.
pub fn ensure(files: &TlsFiles, dir: &Path, hosts: &[&str], years: u64) -> Result<TlsFiles, Error> {
    if !files.auto {
        return Ok(files.clone());
    }
    if !files.is_empty() {
        tracing::warn!("ignoring auto TLS since certs given");
        return Ok(files.clone());
    }
    let dir = std::path::absolute(dir).map_err(|e| failed(dir, &e))?;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        make(&dir, &cert, &key, hosts, years)?;
    }
    let text = |path: PathBuf| path.display().to_string();
    // Unlike at etcd, what was said about clients' certificates holds here, too.
    Ok(TlsFiles { cert: text(cert), key: text(key), ..files.clone() })
}

fn make(dir: &Path, cert: &Path, key: &Path, hosts: &[&str], years: u64) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, &e))?;
    let (cert_pem, key_pem) = generate(hosts, years)?;
    tracing::warn!(years, "automatically generate certificates");
    write(cert, &cert_pem, 0o644).map_err(|e| failed(cert, &e))?;
    tracing::info!(path = %cert.display(), "created cert file");
    write(key, &key_pem, 0o600).map_err(|e| failed(key, &e))?;
    tracing::info!(path = %key.display(), "created key file");
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(format!("cannot make a certificate at {}: {error}", path.display()))
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// A certificate that is its own root, and its key, PEM both.
fn generate(hosts: &[&str], years: u64) -> Result<(String, String), Error> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    // The calendar of certificates ends with the year 9999.
    let years = u32::try_from(years.min(1000)).unwrap_or(1);
    params.not_before = now.into();
    params.not_after = (now + YEAR * years).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "kvist");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let failed = |error: rcgen::Error| Error::new(format!("cannot make a certificate: {error}"));
    for host in hosts.iter().filter(|host| !host.is_empty()) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*host).try_into().map_err(failed)?),
        });
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
