use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName as Name, DnType, IsCa, KeyPair, SigningKey,
};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82, len[0], len[1]], &content[..]].concat()
}

/// A certificate of version 1, from 2020 to the year given.
fn version_1(
    issuer: &X509Certificate<'_>,
    by: &KeyPair,
    key: &KeyPair,
    until: u32,
) -> CertificateDer<'static> {
    // ecdsa-with-SHA256
    let algorithm = tlv(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let validity = [tlv(0x17, &[b"200101000000Z"]), tlv(0x18, &[format!("{until}0101000000Z").as_bytes()])];
    let name = issuer.issuer().as_raw();
    let spki = rcgen::PublicKeyData::subject_public_key_info(key);
    let body = tlv(0x30, &[&[2, 1, 9], &algorithm, name, &tlv(0x30, &[&validity.concat()]), name, &spki]);
    let signature = by.sign(&body).unwrap();
    tlv(0x30, &[&body, &algorithm, &tlv(3, &[&[0], &signature])]).into()
}

fn root(ca: bool, until: i32) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = Name::new();
    params.distinguished_name.push(DnType::CommonName, "the same");
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().der().clone(), key)
}

fn verifier(trusted: &CertificateDer<'static>) -> Verifier {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let algorithms = provider.signature_verification_algorithms;
    let rustls = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    Verifier::new(rustls, vec![trusted.clone()], algorithms)
}

#[test]
fn version_1_needs_a_signature_of_one_that_is_trusted_to_sign() {
    let (good, key) = root(true, 2099);
    let (other, other_key) = root(true, 2099);
    let (no_ca, no_ca_key) = root(false, 2099);
    let (old, old_key) = root(true, 2021);
    let client = KeyPair::generate().unwrap();
    let verdict = |trusted: &CertificateDer<'static>, by: &KeyPair, until| {
        let leaf = version_1(&parse(trusted).unwrap(), by, &client, until);
        verifier(trusted).verify_client_cert(&leaf, &[], UnixTime::now())
    };
    assert!(verdict(&good, &key, 2099).is_ok());
    for (trusted, by, until, error) in [
        (&good, &other_key, 2099, CertificateError::BadSignature),
        (&good, &key, 2021, CertificateError::Expired),
        (&no_ca, &no_ca_key, 2099, CertificateError::UnknownIssuer),
        (&old, &old_key, 2099, CertificateError::Expired),
    ] {
        assert_eq!(verdict(trusted, by, until).unwrap_err(), Error::from(error));
    }
    // Signed by one whom nobody trusts, who brings its own certificate along.
    let leaf = version_1(&parse(&other).unwrap(), &other_key, &client, 2099);
    assert!(
        verifier(&good).verify_client_cert(&leaf, std::slice::from_ref(&other), UnixTime::now()).is_err()
    );
    // One bit changed.
    let mut bytes = version_1(&parse(&good).unwrap(), &key, &client, 2099).to_vec();
    assert_eq!(bytes[8..11], [2, 1, 9]); // the serial number
    bytes[10] = 8;
    let changed = verifier(&good).verify_client_cert(&bytes.into(), &[], UnixTime::now());
    assert_eq!(changed.unwrap_err(), Error::from(CertificateError::BadSignature));
}

#[test]
fn a_trusted_certificate_may_be_shown_itself() {
    let (good, _) = root(true, 2099);
    let (other, _) = root(true, 2099);
    let (old, _) = root(true, 2021);
    let verdict = |trusted: &CertificateDer<'static>, shown: &CertificateDer<'static>| {
        verifier(trusted).verify_client_cert(shown, &[], UnixTime::now())
    };
    assert!(verdict(&good, &good).is_ok());
    assert!(verdict(&good, &other).is_err());
    assert_eq!(verdict(&old, &old).unwrap_err(), Error::from(CertificateError::Expired));
}
