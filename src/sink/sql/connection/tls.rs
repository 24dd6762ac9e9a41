//! TLS of connections to databases, by the modes of PostgreSQL's client library.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};

use super::string::TlsMode;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// The mode of a connection and the files that it needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::sink::sql) struct TlsSettings<'o> {
    pub(in crate::sink::sql) mode: TlsMode,
    /// File of authorities to trust: PEM, or one certificate as DER.
    pub(in crate::sink::sql) root_certificates: Option<&'o Path>,
    /// PEM files of the client certificate and its key.
    pub(in crate::sink::sql) certificate: Option<&'o Path>,
    pub(in crate::sink::sql) key: Option<&'o Path>,
}

/// Whether the authorities of the system are trusted beside those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::sql) enum SystemRoots {
    /// Always.
    Added,
    /// Only where no file is given.
    Replaced,
}

/// The configuration of the TLS library. Kind `Usage` for files that cannot be used.
pub(in crate::sink::sql) fn tls_config(
    settings: TlsSettings<'_>,
    system: SystemRoots,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig> {
    // By name, as the process has more than one provider.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .context(Kind::Bug, "TLS cannot be set up")?;
    let verifier: Arc<dyn ServerCertVerifier> = if settings.mode.verifies() {
        Arc::new(Verifier::new(settings, system, provider)?)
    } else {
        Arc::new(AcceptAny(provider))
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let (Some(certificate), Some(key)) = (settings.certificate, settings.key) else {
        if settings.certificate.is_some() || settings.key.is_some() {
            return Err(Error::new(Kind::Usage, "A client certificate needs both sslcert and sslkey"));
        }
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain
        .context(Kind::Usage, "The client certificate cannot be read")
        .with_field("sslcert", certificate.display())
        .hint("sslcert must be a PEM file")?;
    let key = PrivateKeyDer::from_pem_file(key)
        .context(Kind::Usage, "The key of the client certificate cannot be read")
        .with_field("sslkey", key.display())
        .hint("sslkey must be a PEM file without a password")?;
    builder.with_client_auth_cert(chain, key).context(Kind::Usage, "The client certificate and its key cannot be used")
}

/// The certificates of a file: PEM, or one as DER. Kind `Usage`.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = "The file of trusted certificates cannot be read";
    let bytes = std::fs::read(file).context(Kind::Usage, unreadable).with_field("sslrootcert", file.display())?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let found = found.context(Kind::Usage, unreadable).with_field("sslrootcert", file.display())?;
    Ok(if found.is_empty() && bytes.first() == Some(&0x30) { vec![CertificateDer::from(bytes)] } else { found })
}

/// Accepts every certificate, for the modes below `verify-ca`.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
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

/// Accepts certificates that a trusted authority signed, and those that the file of trusted certificates holds themselves.
#[derive(Debug)]
struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Verifier {
    fn new(settings: TlsSettings<'_>, system: SystemRoots, provider: Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let trusted = settings.root_certificates.map(certificates).transpose()?;
        for certificate in trusted.iter().flatten() {
            roots.add(certificate.clone()).context(Kind::Usage, "A trusted certificate cannot be used")?;
        }
        if trusted.is_none() || system == SystemRoots::Added {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(Error::new(Kind::Usage, "No trusted certificates were found")
                .hint("name a file of trusted certificates with sslrootcert=FILE"));
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self {
            authorities: authorities.context(Kind::Target, "The trusted certificates cannot be used")?,
            trusted: trusted.unwrap_or_default(),
            checks_name: settings.mode == TlsMode::VerifyFull,
        })
    }

    /// A self-signed certificate is often made as that of an authority. The library refuses it as a server's, after it has checked the
    /// dates; it is accepted if the file holds that very certificate.
    fn is_trusted_itself(&self, certificate: &CertificateDer<'_>, error: &rustls::Error) -> bool {
        matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
            && self.trusted.contains(certificate)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_trusted_itself(end_entity, &error) => {
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
