//! Secrets that we give away and recognise again: 256 random bits, of which only the SHA-256
//! is stored. A slow password hash would add nothing to bits that nobody can guess.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clock::Clock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self(URL_SAFE_NO_PAD.encode(clock::random::<32>(clock)))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> String {
        hash(&self.0)
    }

    pub(crate) fn matches(text: &str, stored: &str) -> bool {
        hash(text).as_bytes().ct_eq(stored.as_bytes()).into()
    }
}

fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}
