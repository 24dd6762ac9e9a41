//! Root certificates: those of the user's `--ca-bundle`, and whether the system has any. TLS itself is up to the HTTP client and the drivers.

use std::path::Path;

use crate::error::{Error, Kind, Result, ResultExt};

/// Reads a PEM file with one or more certificates. Kind `Usage` if it cannot be read or holds none.
pub(crate) fn read_bundle(path: &Path) -> Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(path).context(Kind::Usage, "The CA bundle cannot be read")?;
    let roots =
        reqwest::Certificate::from_pem_bundle(&pem).context(Kind::Usage, "The CA bundle is not a list of PEM certificates")?;
    if roots.is_empty() {
        return Err(Error::new(Kind::Usage, "The CA bundle contains no certificate"));
    }
    Ok(roots)
}

/// What to do about a certificate that is not trusted. Reads the system's certificates, so call it only after a failure.
pub(crate) fn hint() -> &'static str {
    hint_for(!rustls_native_certs::load_native_certs().certs.is_empty())
}

fn hint_for(has_system_roots: bool) -> &'static str {
    if has_system_roots {
        "if a proxy or firewall inspects TLS, pass its root certificate with `--ca-bundle FILE`"
    } else {
        "this system has no root certificates: install them (on Debian the package `ca-certificates`), or pass a PEM file with `--ca-bundle FILE`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_distinguishes_missing_certificates_from_an_inspecting_proxy() {
        assert!(hint_for(true).contains("proxy"));
        assert!(hint_for(false).contains("ca-certificates"));
    }
}
