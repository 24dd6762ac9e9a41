//! The bearer tokens that the server has issued.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::model::Timestamp;

/// Issued tokens with the times at which they expire.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, Timestamp>>);

impl Tokens {
    pub(crate) fn add(&self, token: String, expires: Timestamp, now: Timestamp) {
        let mut tokens = self.0.lock();
        tokens.retain(|_, expires| *expires > now);
        tokens.insert(token, expires);
    }

    pub(crate) fn forget_all(&self) {
        self.0.lock().clear();
    }

    pub(crate) fn expiry(&self, token: &str) -> Option<Timestamp> {
        self.0.lock().get(token).copied()
    }
}
