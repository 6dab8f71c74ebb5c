//! JSON Web Signatures in compact form (RFC 7515), checked as RFC 8725 advises: the algorithm
//! is pinned to the key, never taken from the token; `crit` is refused; keys that a token
//! carries or points at are ignored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three parts of base64url, or not a header that we understand.
    #[error("the token is malformed")]
    Malformed,
    /// The token names another algorithm than its key is for.
    #[error("the token's algorithm is not the one of the key")]
    Algorithm,
    /// The signature is not the key's.
    #[error("the token's signature does not hold")]
    Signature,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Its type, curve or algorithm is not one of HS256, RS256, ES256 and EdDSA.
    #[error("only keys for HS256, RS256, ES256 and EdDSA are supported")]
    Unsupported,
    /// It says that it is not for checking signatures.
    #[error("the key is not for signatures")]
    NotForSignatures,
    /// It is not what it says.
    #[error("the key is malformed")]
    Malformed,
}

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub struct VerifyingKey {
    /// Its name among the issuer's keys.
    pub id: Option<String>,
    algorithm: Algorithm,
    /// The algorithm as JOSE names it.
    name: &'static str,
    key: DecodingKey,
}

/// What we read of a token's header.
#[derive(Debug, Deserialize)]
pub(crate) struct Header {
    alg: String,
    pub(crate) kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl VerifyingKey {
    /// A shared secret, for HS256.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        Self {
            id: None,
            algorithm: Algorithm::HS256,
            name: "HS256",
            key: DecodingKey::from_secret(secret),
        }
    }

    /// A key of a JWK set. Its `alg` is taken at its word; without one, the type decides.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let common = &jwk.common;
        match &common.public_key_use {
            None | Some(PublicKeyUse::Signature) => {}
            Some(PublicKeyUse::Encryption | PublicKeyUse::Other(_)) => {
                return Err(KeyError::NotForSignatures);
            }
        }
        if let Some(operations) = &common.key_operations
            && !operations.contains(&KeyOperations::Verify)
            && !operations.contains(&KeyOperations::Sign)
        {
            return Err(KeyError::NotForSignatures);
        }
        let (algorithm, name) = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, "HS256"),
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, "RS256"),
            AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, "ES256")
            }
            AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, "EdDSA")
            }
            AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::Other(_)
            | _ => return Err(KeyError::Unsupported),
        };
        if common.key_algorithm.is_some_and(|named| named.to_string() != name) {
            return Err(KeyError::Unsupported);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| KeyError::Malformed)?;
        Ok(Self { id: common.key_id.clone(), algorithm, name, key })
    }

    /// The algorithm, as JOSE names it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.name
    }

    /// Checks a token and returns its payload.
    ///
    /// # Errors
    /// [`Error`].
    pub fn verify(&self, token: &str) -> Result<Vec<u8>, Error> {
        let (message, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (_, payload) = message.split_once('.').ok_or(Error::Malformed)?;
        if header(token)?.alg != self.name {
            return Err(Error::Algorithm);
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Error::Malformed)?;
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Error::Malformed)?;
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm)
        {
            Ok(true) => Ok(payload),
            Ok(false) | Err(_) => Err(Error::Signature),
        }
    }
}

/// Reads the header of a token without believing it.
pub(crate) fn header(token: &str) -> Result<Header, Error> {
    let (header, _) = token.split_once('.').ok_or(Error::Malformed)?;
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| Error::Malformed)?;
    let header: Header = serde_json::from_slice(&json).map_err(|_| Error::Malformed)?;
    if header.crit.is_some() {
        return Err(Error::Malformed);
    }
    Ok(header)
}

/// Signs claims with a shared secret (HS256), for tokens of one's own making.
///
/// # Errors
/// [`Error::Malformed`] if the claims cannot be written as JSON.
pub fn sign(secret: &[u8], claims: &serde_json::Value) -> Result<String, Error> {
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    let header = jsonwebtoken::Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &key).map_err(|_| Error::Malformed)
}
