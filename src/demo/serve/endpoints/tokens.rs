//! The bearer tokens that the server has issued.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::Timestamp;

/// Issued tokens with the times at which they expire.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, Timestamp>>);

impl Tokens {
    pub(crate) fn add(&self, token: String, expires: Timestamp, now: Timestamp) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, expires| *expires > now);
        tokens.insert(token, expires);
    }

    pub(crate) fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn expiry(&self, token: &str) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).copied()
    }
}
