//! TLS below a session, by the modes of the server's own client library.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::options::{Options, TlsMode};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// Greets by TLS on a connection whose server has agreed to it.
pub(super) async fn secure(stream: TcpStream, options: &Options) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(options.host.clone()).or_fail(Kind::Usage, "The server's name cannot be used for TLS")?;
    let connector = TlsConnector::from(Arc::new(config(options)?));
    connector
        .connect(name, stream)
        .await
        .or_fail(Kind::Target, "The database server's TLS could not be trusted or agreed on")
        .hint("name the authority with sslrootcert=..., or choose ssl=require to trust any certificate")
}

fn config(options: &Options) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .or_fail(Kind::Bug, "TLS cannot be set up")?;
    let verifier: Arc<dyn ServerCertVerifier> = match options.tls {
        TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => Arc::new(Anybody(provider)),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let roots = Arc::new(roots(options)?);
            let strict = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let strict = strict.or_fail(Kind::Target, "No certificates of authorities were found")?;
            match options.tls {
                TlsMode::VerifyCa => Arc::new(AnyName(strict)),
                _ => strict,
            }
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn roots(options: &Options) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &options.root_certificates {
        Some(file) => {
            let unreadable = "The file of certificates cannot be read";
            let certificates = CertificateDer::pem_file_iter(file).or_fail(Kind::Usage, unreadable)?;
            for certificate in certificates {
                roots.add(certificate.or_fail(Kind::Usage, unreadable)?).or_fail(Kind::Usage, unreadable)?;
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
