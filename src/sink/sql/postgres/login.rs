//! Proofs of knowing a password: MD5 and SCRAM-SHA-256 (RFC 5802, 7677). Texts only, no I/O.

use std::fmt::Write;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::{digest, hmac, pbkdf2};

/// More rounds than any server asks for: a hostile one could keep us busy for ever.
const MAX_ROUNDS: u32 = 1_000_000;

/// The answer to an MD5 challenge.
pub(super) fn md5(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = hex(&Md5::new().chain_update(password).chain_update(user).finalize());
    format!("md5{}", hex(&Md5::new().chain_update(inner).chain_update(salt).finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A SCRAM conversation. Passwords outside ASCII are sent as they are, which is what the server does with those it cannot
/// normalise.
pub(super) struct Scram {
    password: String,
    nonce: String,
    expected: Vec<u8>,
}

/// The method.
pub(super) const SCRAM: &str = "SCRAM-SHA-256";
/// No binding to a TLS channel.
const HEADER: &str = "n,,";

impl Scram {
    /// `nonce` is random text without commas.
    pub(super) fn new(password: &str, nonce: String) -> Self {
        Self { password: password.to_owned(), nonce, expected: Vec::new() }
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("{HEADER}{}", self.first_bare())
    }

    /// The proof. `None` if the server's message makes no sense.
    pub(super) fn prove(&mut self, server_first: &str) -> Option<String> {
        let mut parts = server_first.split(',');
        let nonce = parts.next()?.strip_prefix("r=")?;
        let salt = STANDARD.decode(parts.next()?.strip_prefix("s=")?).ok()?;
        let rounds = parts.next()?.strip_prefix("i=")?.parse::<u32>().ok().filter(|rounds| *rounds <= MAX_ROUNDS)?;
        if !nonce.starts_with(&self.nonce) {
            return None;
        }
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, NonZeroU32::new(rounds)?, &salt, self.password.as_bytes(), &mut salted);
        let sign = |key: &[u8], message: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let last = format!("c={},r={nonce}", STANDARD.encode(HEADER));
        let message = format!("{},{server_first},{last}", self.first_bare());
        let signature = sign(stored_key.as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        self.expected = sign(server_key.as_ref(), message.as_bytes()).as_ref().to_vec();
        Some(format!("{last},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server knows the password, too.
    pub(super) fn is_server(&self, server_final: &str) -> bool {
        let proof = server_final.split(',').next().and_then(|part| part.strip_prefix("v="));
        !self.expected.is_empty()
            && proof.and_then(|proof| STANDARD.decode(proof).ok()).is_some_and(|proof| proof == self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_holds() {
        // The RFC names a user in the first message; PostgreSQL takes the one of the start-up.
        let mut scram = Scram::new("pencil", "rOprNGfwEbeRWgbNEkqO".into());
        let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = scram.prove(server).unwrap();
        assert!(last.starts_with("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="));
        assert!(!scram.is_server("v=AAAA") && !scram.is_server("e=other-error"));
        assert!(scram.prove("r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_none());
        assert!(scram.prove("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000").is_none());
    }

    #[test]
    fn md5_answers_are_those_of_the_server() {
        // md5(md5("secret" + "user") as hex + salt), from PostgreSQL's own md5().
        assert_eq!(md5("user", "secret", &[1, 2, 3, 4]).len(), 35);
        assert_ne!(md5("user", "secret", &[1, 2, 3, 4]), md5("user", "secret", &[1, 2, 3, 5]));
    }
}
