//! Which chain of certificates proves who a client is. rustls decides, but for two shapes that Go accepts, that rustls
//! does not read, and that people make by hand:
//!
//! - a certificate that is itself one of the trusted ones (one self-signed certificate for everything), and
//! - a certificate of X.509 version 1, which has no extensions, as `openssl x509 -req` makes it, if one of the trusted
//!   certificates has signed it. Nothing may stand between the two.
//!
//! Possession of the key is proven by the handshake in every case. Called by `tls` for endpoints that trust somebody.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    rustls: Arc<dyn ClientCertVerifier>,
    roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// A verifier of clients that trusts `roots`; so does `rustls`.
    pub fn new(
        rustls: Arc<dyn ClientCertVerifier>,
        roots: Vec<CertificateDer<'static>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Verifier {
        Verifier { rustls, roots, algorithms }
    }

    /// Judges a certificate of one of the two shapes; `None` if it has neither.
    fn verify_simple(&self, der: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), CertificateError>> {
        let leaf = parse(der)?;
        let trusted = self.roots.iter().any(|root| root.as_ref() == der.as_ref());
        if !trusted && leaf.version() != X509Version::V1 {
            return None;
        }
        let Some(now) = time(now) else { return Some(Err(CertificateError::BadEncoding)) };
        let valid = check_time(&leaf, now).and_then(|()| check_purpose(&leaf));
        Some(valid.and_then(|()| if trusted { Ok(()) } else { self.verify_version_1(&leaf, now) }))
    }

    fn verify_version_1(&self, leaf: &X509Certificate<'_>, now: ASN1Time) -> Result<(), CertificateError> {
        let algorithm = &leaf.signature_algorithm;
        let weak = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&algorithm.algorithm);
        if weak || *algorithm != leaf.tbs_certificate.signature || !leaf.extensions().is_empty() {
            return Err(CertificateError::BadEncoding);
        }
        let mut error = CertificateError::UnknownIssuer;
        for root in self.roots.iter().filter_map(parse) {
            if root.subject().as_raw() != leaf.issuer().as_raw() {
                continue;
            }
            let judged = check_issuer(&root, now).and_then(|()| {
                let signed = leaf.verify_signature(Some(root.public_key()));
                signed.map_err(|_| CertificateError::BadSignature)
            });
            match judged {
                Ok(()) => return Ok(()),
                Err(reason) => error = reason,
            }
        }
        Err(error)
    }

    /// rustls's verdict on a signature by `certificate`'s key, or ours if it can't read such certificates.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        by_rustls: impl FnOnce() -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match parse(certificate) {
            Some(leaf) if leaf.version() == X509Version::V1 => {
                let key = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            _ => by_rustls(),
        }
    }
}

fn parse<'c>(der: &'c CertificateDer<'_>) -> Option<X509Certificate<'c>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

fn time(now: UnixTime) -> Option<ASN1Time> {
    ASN1Time::from_timestamp(i64::try_from(now.as_secs()).ok()?).ok()
}

/// Whether the certificate is valid now.
pub(super) fn check_time_at(
    certificate: &X509Certificate<'_>,
    now: UnixTime,
) -> Result<(), CertificateError> {
    check_time(certificate, time(now).ok_or(CertificateError::BadEncoding)?)
}

fn check_time(certificate: &X509Certificate<'_>, now: ASN1Time) -> Result<(), CertificateError> {
    let validity = certificate.validity();
    if now < validity.not_before {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after { Err(CertificateError::Expired) } else { Ok(()) }
}

/// Whether clients may use the certificate. Saying nothing about its use allows any.
fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(usage)) if usage.value.client_auth || usage.value.any => Ok(()),
        _ => Err(CertificateError::InvalidPurpose),
    }
}

/// Whether a trusted certificate may sign others now. One of version 1 may, as it can't say that it may not; one with
/// extensions that bound what it may sign is not followed.
fn check_issuer(root: &X509Certificate<'_>, now: ASN1Time) -> Result<(), CertificateError> {
    check_time(root, now)?;
    check_purpose(root)?;
    let known = [OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_EXTENDED_KEY_USAGE];
    let bound =
        root.extensions().iter().any(|extension| extension.critical && !known.contains(&extension.oid));
    if bound || !matches!(root.name_constraints(), Ok(None)) {
        return Err(CertificateError::UnknownIssuer);
    }
    let signs = match root.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    if signs && (root.is_ca() || root.version() == X509Version::V1) {
        Ok(())
    } else {
        Err(CertificateError::UnknownIssuer)
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.rustls.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.verify_simple(end_entity, now) {
            Some(verdict) => verdict.map(|()| ClientCertVerified::assertion()).map_err(Error::from),
            None => self.rustls.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let by_rustls = || self.rustls.verify_tls12_signature(message, cert, dss);
        self.verify_signature(message, cert, dss, by_rustls)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let by_rustls = || self.rustls.verify_tls13_signature(message, cert, dss);
        self.verify_signature(message, cert, dss, by_rustls)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rustls.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
