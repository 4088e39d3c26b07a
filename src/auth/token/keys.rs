//! Keys that sign and check tokens: every method of JSON web signatures that etcd knows, over aws-lc.
//!
//! Key files are PEM: private keys as PKCS #1, SEC 1 or PKCS #8, public ones as PKIX, PKCS #1 or a certificate. For HMAC
//! the private key is the bytes of its file.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaEncoding,
    RsaKeyPair, VerificationAlgorithm,
};
use aws_lc_rs::{error::KeyRejected, hmac};
use x509_parser::pem::Pem;

/// Why a token cannot be made or checked with the keys given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The method is none of [`Method::by_name`].
    #[error("invalid auth signature method")]
    UnknownMethod,
    /// Neither a private nor a public key, or no HMAC key.
    #[error("missing key data")]
    Missing,
    /// The two keys are not a pair.
    #[error("public and private keys don't match")]
    Mismatch,
    /// The file holds no key of the method's kind.
    #[error("invalid key: {0}")]
    Invalid(String),
}

impl From<KeyRejected> for KeyError {
    fn from(rejected: KeyRejected) -> KeyError {
        KeyError::Invalid(rejected.to_string())
    }
}

/// How tokens are signed.
#[derive(Clone, Copy)]
pub struct Method {
    /// Its name in a token's header.
    pub name: &'static str,
    family: Family,
}

#[derive(Clone, Copy)]
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding, &'static dyn VerificationAlgorithm),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static dyn VerificationAlgorithm),
    Ed25519,
}

impl Method {
    /// Finds a method.
    pub fn by_name(name: &str) -> Option<Method> {
        use Family::{Ecdsa, Ed25519, Hmac, Rsa};
        use signature as s;
        let (name, family) = match name {
            "HS256" => ("HS256", Hmac(hmac::HMAC_SHA256)),
            "HS384" => ("HS384", Hmac(hmac::HMAC_SHA384)),
            "HS512" => ("HS512", Hmac(hmac::HMAC_SHA512)),
            "RS256" => ("RS256", Rsa(&s::RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256)),
            "RS384" => ("RS384", Rsa(&s::RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384)),
            "RS512" => ("RS512", Rsa(&s::RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512)),
            "PS256" => ("PS256", Rsa(&s::RSA_PSS_SHA256, &s::RSA_PSS_2048_8192_SHA256)),
            "PS384" => ("PS384", Rsa(&s::RSA_PSS_SHA384, &s::RSA_PSS_2048_8192_SHA384)),
            "PS512" => ("PS512", Rsa(&s::RSA_PSS_SHA512, &s::RSA_PSS_2048_8192_SHA512)),
            "ES256" => ("ES256", Ecdsa(&s::ECDSA_P256_SHA256_FIXED_SIGNING, &s::ECDSA_P256_SHA256_FIXED)),
            "ES384" => ("ES384", Ecdsa(&s::ECDSA_P384_SHA384_FIXED_SIGNING, &s::ECDSA_P384_SHA384_FIXED)),
            "ES512" => ("ES512", Ecdsa(&s::ECDSA_P521_SHA512_FIXED_SIGNING, &s::ECDSA_P521_SHA512_FIXED)),
            "EdDSA" => ("EdDSA", Ed25519),
            _ => return None,
        };
        Some(Method { name, family })
    }
}

/// The keys of a server.
pub struct Keys {
    verifying: Verifying,
    signing: Option<Signing>,
}

enum Verifying {
    Hmac(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

enum Signing {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Keys {
    /// Reads the contents of key files. Without the private one, tokens can only be checked.
    pub fn new(method: Method, public: Option<&[u8]>, private: Option<&[u8]>) -> Result<Keys, KeyError> {
        let verification: &'static dyn VerificationAlgorithm = match method.family {
            Family::Hmac(algorithm) => {
                let bytes = private.filter(|bytes| !bytes.is_empty()).ok_or(KeyError::Missing)?;
                let key = Box::new(hmac::Key::new(algorithm, bytes));
                return Ok(Keys {
                    verifying: Verifying::Hmac(key.clone()),
                    signing: Some(Signing::Hmac(key)),
                });
            }
            Family::Rsa(_, verification) | Family::Ecdsa(_, verification) => verification,
            Family::Ed25519 => &signature::ED25519,
        };
        let signing = private.map(|pem| Signing::read(method, pem)).transpose()?;
        let parsed = |der: &[u8]| ParsedPublicKey::new(verification, der).map_err(KeyError::from);
        let given = public.map(|pem| public_der(pem).and_then(|der| parsed(&der))).transpose()?;
        let Some(signing) = signing else {
            let verifying = Verifying::Public(given.ok_or(KeyError::Missing)?);
            return Ok(Keys { verifying, signing: None });
        };
        let own = parsed(signing.public())?;
        if let Some(given) = given {
            let sample = signing.sign(b"pair").ok_or(KeyError::Mismatch)?;
            given.verify_sig(b"pair", &sample).map_err(|_| KeyError::Mismatch)?;
        }
        Ok(Keys { verifying: Verifying::Public(own), signing: Some(signing) })
    }

    /// Signs; `None` when only the public key is known.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.signing.as_ref()?.sign(message)
    }

    /// Whether the signature is right.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifying {
            Verifying::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifying::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Signing {
    fn read(method: Method, pem: &[u8]) -> Result<Signing, KeyError> {
        let der = first_block(pem)?;
        match method.family {
            Family::Hmac(algorithm) => Ok(Signing::Hmac(Box::new(hmac::Key::new(algorithm, pem)))),
            Family::Rsa(encoding, _) => {
                let pair = RsaKeyPair::from_der(&der).or_else(|_| RsaKeyPair::from_pkcs8(&der))?;
                Ok(Signing::Rsa(pair, encoding))
            }
            Family::Ecdsa(algorithm, _) => {
                Ok(Signing::Ecdsa(EcdsaKeyPair::from_private_key_der(algorithm, &der)?))
            }
            Family::Ed25519 => Ok(Signing::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)?)),
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Signing::Hmac(_) => &[],
            Signing::Rsa(pair, _) => pair.public_key().as_ref(),
            Signing::Ecdsa(pair) => pair.public_key().as_ref(),
            Signing::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// `None` when the key is too short for the method.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Signing::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Signing::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signing::Ecdsa(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Signing::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// The first block of a PEM file that is not about the curve alone, as `openssl ecparam` writes one.
fn first_block(pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    let invalid = || KeyError::Invalid("not in PEM format".to_owned());
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| invalid())?;
        if block.label != "EC PARAMETERS" {
            return Ok(block.contents);
        }
    }
    Err(invalid())
}

/// A public key as `ParsedPublicKey` takes it.
fn public_der(pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    let der = first_block(pem)?;
    match x509_parser::parse_x509_certificate(&der) {
        Ok((_, certificate)) => Ok(certificate.public_key().raw.to_vec()),
        Err(_) => Ok(der),
    }
}
