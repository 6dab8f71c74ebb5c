//! Secrets that we give away and recognise again: 256 random bits, of which only the SHA-256
//! is stored. A slow password hash would add nothing to bits that nobody can guess.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clock::Clock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A new secret, as text.
#[must_use]
pub fn random(clock: &dyn Clock) -> String {
    URL_SAFE_NO_PAD.encode(clock::random::<32>(clock))
}

/// What may be stored of a secret.
#[must_use]
pub fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}

/// Whether `secret` is the one that was stored as `hash`. Takes the same time either way.
#[must_use]
pub fn matches(secret: &str, stored: &str) -> bool {
    hash(secret).as_bytes().ct_eq(stored.as_bytes()).into()
}
