//! TLS below a session, by the modes of the server's own client library.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::{Options, TlsMode};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// Whom to trust and what to show. Kind `Usage` for files that cannot be used.
pub(super) fn config(options: &Options) -> Result<ClientConfig> {
    // Named, as the tree has two of them.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context(Kind::Bug, "TLS cannot be set up")?;
    let mode = match options.tls {
        // As that library does it, for the sake of those who name an authority and think it is asked.
        TlsMode::Require if options.root_certificates.is_some() => TlsMode::VerifyCa,
        mode => mode,
    };
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => Arc::new(Anybody(provider)),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let roots = Arc::new(roots(options)?);
            let strict = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let strict = strict.context(Kind::Target, "No certificates of authorities were found")?;
            match mode {
                TlsMode::VerifyCa => Arc::new(AnyName(strict)),
                _ => strict,
            }
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let (Some(certificate), Some(key)) = (&options.certificate, &options.key) else {
        return match options.certificate.is_some() || options.key.is_some() {
            true => Err(Error::new(Kind::Usage, "A client certificate needs both sslcert and sslkey")),
            false => Ok(builder.with_no_client_auth()),
        };
    };
    let unreadable = "The file of the client certificate cannot be read";
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.context(Kind::Usage, unreadable).with_field("sslcert", certificate.display())?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        .context(Kind::Usage, "The file of the client certificate's key cannot be read")
        .with_field("sslkey", key.display())
        .hint("it has to be PEM, without a password")?;
    builder.with_client_auth_cert(chain, key_der).context(Kind::Usage, "The client certificate and its key cannot be used")
}

fn roots(options: &Options) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &options.root_certificates {
        Some(file) => {
            let unreadable = |error: rustls::pki_types::pem::Error| {
                Error::new(Kind::Usage, "The file of certificates to trust cannot be read")
                    .with_field("sslrootcert", file.display())
                    .caused_by(error)
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).context(Kind::Usage, "A certificate to trust cannot be used")?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(Error::new(Kind::Usage, "No certificates of authorities were found").hint("name them with sslrootcert=..."));
    }
    Ok(roots)
}

/// Trusts every certificate, as the modes below `verify-ca` say.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts what an authority vouches for, whatever name it has.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
