//! TLS with a scripted peer: the handshake is wrapped in packets of the protocol; everything after it is not.

use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::super::connection::MssqlServer;
use super::peer::{Answer, Peer, Secure, Seen, Stream};
use crate::error::Kind;
use crate::sink::sql::connection::Server;
use crate::sink::sql::dialect::Statement;

/// A stream whose bytes are wrapped in packets until the handshake is over.
struct Wrapped {
    stream: TcpStream,
    /// The header of the packet that is being read, as far as it has arrived.
    header: Vec<u8>,
    /// Bytes of that packet still to come.
    left: usize,
    /// Packets that are being sent.
    out: Vec<u8>,
    is_raw: bool,
}

impl AsyncRead for Wrapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.is_raw {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        while self.left == 0 {
            let mut space = vec![0; 8 - self.header.len()];
            let mut part = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let filled = part.filled().to_vec();
            self.header.extend(filled);
            if self.header.len() == 8 {
                self.left = usize::from(u16::from_be_bytes([self.header[2], self.header[3]])) - 8;
                self.header.clear();
            }
        }
        let mut space = vec![0; self.left.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        self.left -= part.filled().len();
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.is_raw {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let length = bytes.len().min(4000);
        let size = ((length + 8) as u16).to_be_bytes();
        self.out.extend_from_slice(&[0x12, 1, size[0], size[1], 0, 0, 0, 0]);
        self.out.extend_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            match Pin::new(&mut self.stream).poll_write(cx, &out) {
                Poll::Ready(Ok(sent)) => self.out = out[sent..].to_vec(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.out = out;
                    return Poll::Pending;
                }
            }
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn openssl(folder: &Path, line: &str) {
    let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Two authorities; the first signs the certificate of a server named `db.example`.
fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(folder, &format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}"));
    }
    std::fs::write(folder.join("extensions"), "subjectAltName=DNS:db.example").unwrap();
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=anything"));
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
    );
}

/// TLS 1.2, as SQL Server 2019 speaks it.
fn secure(folder: &Path) -> Arc<Secure> {
    let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Arc::new(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move {
            let wrapped = Wrapped { stream, header: Vec::new(), left: 0, out: Vec::new(), is_raw: false };
            let mut stream = acceptor.accept(wrapped).await.ok()?;
            stream.get_mut().0.is_raw = true;
            Some(Box::new(stream) as Box<dyn Stream>)
        })
    })
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test says what it did not run")]
async fn logins_are_sent_only_to_verified_servers() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("not run: TLS of SQL Server (install openssl)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let authority = format!("sslrootcert={}", file("ca.crt"));
    let peer = Peer::with(|_| Answer::Done, Some(secure(folder.path()))).await;
    let connect = async |query: String| MssqlServer::from_url(&peer.url(&query).parse().unwrap()).unwrap().connect().await;
    for query in [
        String::new(),
        "?ssl=require".to_owned(),
        "?ssl=prefer".to_owned(),
        format!("?ssl=verify-full&{authority}&hostNameInCertificate=db.example"),
        format!("?ssl=verify-ca&{authority}"),
    ] {
        let session = connect(query.clone()).await;
        assert!(session.is_ok_and(|session| session.is_idle()), "{query}");
    }
    let logins = |peer: &Peer| peer.seen().iter().filter(|seen| matches!(seen, Seen::Login(..))).count();
    assert_eq!(logins(&peer), 5);
    for query in [
        "?ssl=verify-full".to_owned(),
        format!("?ssl=verify-full&{authority}"),
        format!("?ssl=verify-ca&sslrootcert={}&hostNameInCertificate=db.example", file("other.crt")),
    ] {
        let error = connect(query.clone()).await.err().expect(&query);
        assert!(
            error.kind() == Kind::Target && error.hint_text().is_some_and(|hint| hint.contains("sslrootcert")),
            "{error:?}"
        );
    }
    let error = connect(format!("?ssl=verify-full&sslrootcert={}", file("nowhere.crt"))).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(logins(&peer), 5, "no login reaches a server that is not trusted");
}

/// A server with strict encryption, which accepts only clients that name the protocol.
fn strict(folder: &Path) -> Arc<Secure> {
    let certificate = CertificateDer::from_pem_file(folder.join("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"tds/8.0".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Arc::new(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move {
            let stream = acceptor.accept(stream).await.ok()?;
            (stream.get_ref().1.alpn_protocol() == Some(&b"tds/8.0"[..])).then(|| Box::new(stream) as Box<dyn Stream>)
        })
    })
}

#[tokio::test]
async fn strict_encryption_comes_before_the_first_message() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let peer = Peer::strict(|_| Answer::Done, strict(folder.path())).await;
    let connect = async |query: String| MssqlServer::from_url(&peer.url(&query).parse().unwrap()).unwrap().connect().await;
    let trusted = format!("?encrypt=strict&sslrootcert={}&hostNameInCertificate=db.example", file("ca.crt"));
    let mut session = connect(trusted).await.unwrap();
    session.execute(&Statement::new("SELECT 1")).await.unwrap();
    for query in [
        format!("?encrypt=strict&sslrootcert={}", file("ca.crt")),
        format!("?encrypt=strict&sslrootcert={}&hostNameInCertificate=db.example", file("other.crt")),
    ] {
        let error = connect(query.clone()).await.err().expect(&query);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("sslrootcert")), "{error:?}");
    }
    let logins = peer.seen().iter().filter(|seen| matches!(seen, Seen::Login(..))).count();
    assert_eq!(logins, 1, "no login reaches a server that is not trusted");
}

/// Made as `openssl req -x509` does it: signed by itself, and marked as the certificate of an authority.
#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_the_file_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let names = "-addext basicConstraints=critical,CA:TRUE -addext subjectAltName=DNS:db.example";
    openssl(
        folder.path(),
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.crt -days 2 \
             -subj /CN=db.example {names}"
        ),
    );
    let file = |name: &str| folder.path().join(name).display().to_string();
    let peer = Peer::with(|_| Answer::Done, Some(secure(folder.path()))).await;
    let connect = async |query: String| MssqlServer::from_url(&peer.url(&query).parse().unwrap()).unwrap().connect().await;
    for (query, is_trusted) in [
        (format!("?ssl=verify-full&sslrootcert={}&hostNameInCertificate=db.example", file("server.crt")), true),
        (format!("?ssl=verify-full&sslrootcert={}", file("server.crt")), false),
        (format!("?ssl=verify-ca&sslrootcert={}", file("server.crt")), true),
        (format!("?ssl=verify-full&sslrootcert={}&hostNameInCertificate=db.example", file("ca.crt")), false),
        ("?ssl=verify-full&hostNameInCertificate=db.example".to_owned(), false),
    ] {
        let opened = connect(query.clone()).await;
        assert_eq!(opened.is_ok(), is_trusted, "{query}: {:?}", opened.err());
    }
}
