//! TLS with a server whose certificate is verified. The driver can neither leave out the name nor accept a self-signed certificate
//! that is marked as that of an authority, so negotiation and handshake are done here.
//!
//! TDS negotiates TLS in its first message, PRELOGIN, and wraps the handshake in its packets. Once that is done, the driver sends a
//! PRELOGIN of its own. daplake answers it like a server without TLS, so that the driver sends everything else unchanged into the
//! encrypted stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HEADER_BYTES: usize = 8;
/// Type of a PRELOGIN packet, and status of the last packet of a message.
const PRELOGIN: u8 = 0x12;
const END_OF_MESSAGE: u8 = 1;
/// Option of a PRELOGIN message, and its values.
const ENCRYPTION: u8 = 1;
const ENCRYPT_ON: u8 = 1;
const ENCRYPT_NOT_SUPPORTED: u8 = 2;
const ENCRYPT_REQUIRED: u8 = 3;
const TERMINATOR: u8 = 0xff;
/// The name of the protocol in TLS that comes first.
const STRICT_PROTOCOL: &[u8] = b"tds/8.0";
/// Bytes of a packet before the login.
const PACKET_BYTES: usize = 4096;

/// The stream that the driver uses.
pub(super) enum Transport {
    /// The driver negotiates TLS, if any.
    Plain(TcpStream),
    /// TLS is established.
    Verified(Box<Verified>),
}

impl Transport {
    fn verified(stream: TlsStream<Wrapped>, answer: Vec<u8>) -> Self {
        Self::Verified(Box::new(Verified { stream, header: Vec::new(), left: HEADER_BYTES, answer }))
    }
}

/// Why there is no TLS.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server does not offer it.
    Unsupported,
    /// The certificate was refused, or the parties have no version or cipher in common.
    Refused(io::Error),
    /// The connection broke.
    Lost(io::Error),
}

/// Negotiates TLS and verifies that the server has a certificate for `name`.
pub(super) async fn connect(mut stream: TcpStream, config: ClientConfig, name: &str) -> Result<Transport, Failure> {
    stream.write_all(&packet(&prelogin())).await.map_err(Failure::Lost)?;
    let mut answer = receive(&mut stream).await.map_err(Failure::Lost)?;
    let encryption = encryption_option(&mut answer).ok_or(Failure::Unsupported)?;
    if !matches!(*encryption, ENCRYPT_ON | ENCRYPT_REQUIRED) {
        return Err(Failure::Unsupported);
    }
    *encryption = ENCRYPT_NOT_SUPPORTED;
    let mut stream = handshake(stream, config, name, true).await?;
    stream.get_mut().0.is_handshake = false;
    Ok(Transport::verified(stream, answer))
}

/// As [`connect`], for servers with strict encryption (TDS 8.0): TLS comes first, and all messages are inside.
pub(super) async fn connect_strictly(stream: TcpStream, mut config: ClientConfig, name: &str) -> Result<Transport, Failure> {
    config.alpn_protocols = vec![STRICT_PROTOCOL.to_vec()];
    let mut stream = handshake(stream, config, name, false).await?;
    stream.write_all(&packet(&prelogin())).await.map_err(Failure::Lost)?;
    stream.flush().await.map_err(Failure::Lost)?;
    let mut answer = receive(&mut stream).await.map_err(Failure::Lost)?;
    if let Some(encryption) = encryption_option(&mut answer) {
        *encryption = ENCRYPT_NOT_SUPPORTED;
    }
    Ok(Transport::verified(stream, answer))
}

/// Establishes TLS with a server that has a certificate for `name`. `is_wrapped`: the handshake travels in packets of the protocol.
async fn handshake(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
    is_wrapped: bool,
) -> Result<TlsStream<Wrapped>, Failure> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| Failure::Refused(io::Error::other(error)))?;
    let (header, unwrapped, out) = (Vec::new(), Vec::new(), Vec::new());
    let wrapped = Wrapped { stream, header, left: 0, unwrapped, out, is_handshake: is_wrapped };
    let connected = TlsConnector::from(Arc::new(config)).connect(name, wrapped).await;
    connected.map_err(|error| {
        if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            Failure::Refused(error)
        } else {
            Failure::Lost(error)
        }
    })
}

/// A PRELOGIN message that asks for TLS: version, encryption, instance, thread, no multiple result sets.
fn prelogin() -> Vec<u8> {
    let options: [(u8, &[u8]); 5] = [(0, &[9, 0, 0, 0, 0, 0]), (ENCRYPTION, &[ENCRYPT_ON]), (2, &[0]), (3, &[0; 4]), (4, &[0])];
    let (mut message, mut values) = (Vec::new(), Vec::new());
    for (option, value) in options {
        let offset = options.len() * 5 + 1 + values.len();
        message.push(option);
        message.extend_from_slice(&(offset as u16).to_be_bytes());
        message.extend_from_slice(&(value.len() as u16).to_be_bytes());
        values.extend_from_slice(value);
    }
    message.push(TERMINATOR);
    message.extend(values);
    message
}

/// One message as packets.
fn packet(message: &[u8]) -> Vec<u8> {
    let mut packets = Vec::new();
    let mut chunks = message.chunks(PACKET_BYTES - HEADER_BYTES).peekable();
    while let Some(chunk) = chunks.next() {
        let status = if chunks.peek().is_none() { END_OF_MESSAGE } else { 0 };
        packets.extend_from_slice(&[PRELOGIN, status]);
        packets.extend_from_slice(&((chunk.len() + HEADER_BYTES) as u16).to_be_bytes());
        packets.extend_from_slice(&[0; 4]);
        packets.extend_from_slice(chunk);
    }
    packets
}

fn body_bytes(header: &[u8]) -> io::Result<usize> {
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    length.checked_sub(HEADER_BYTES).ok_or_else(|| io::Error::other("a packet is shorter than its header"))
}

/// One packet with its header.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; HEADER_BYTES];
    stream.read_exact(&mut packet).await?;
    packet.resize(HEADER_BYTES + body_bytes(&packet)?, 0);
    stream.read_exact(&mut packet[HEADER_BYTES..]).await?;
    Ok(packet)
}

/// The byte of a PRELOGIN packet that indicates whether TLS is used.
fn encryption_option(packet: &mut [u8]) -> Option<&mut u8> {
    let body = packet.get_mut(HEADER_BYTES..)?;
    let mut place = 0;
    while *body.get(place)? != TERMINATOR {
        if body[place] == ENCRYPTION {
            let offset = u16::from_be_bytes([*body.get(place + 1)?, *body.get(place + 2)?]);
            return body.get_mut(usize::from(offset));
        }
        place += 5;
    }
    None
}

/// The connection below TLS. During the handshake its bytes travel in packets.
pub(super) struct Wrapped {
    stream: TcpStream,
    /// Header of the packet that is being read, as far as it has arrived.
    header: Vec<u8>,
    /// Bytes of that packet still to come.
    left: usize,
    /// Bytes written since the last flush; they become one message.
    unwrapped: Vec<u8>,
    /// Packets that are being sent.
    out: Vec<u8>,
    is_handshake: bool,
}

impl Wrapped {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.is_handshake {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        while self.left == 0 {
            let known = self.header.len();
            let mut space = [0; HEADER_BYTES];
            let mut part = ReadBuf::new(&mut space[known..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
            let arrived = part.filled().len();
            if arrived == 0 {
                return Poll::Ready(Ok(()));
            }
            self.header.extend_from_slice(&space[known..known + arrived]);
            if self.header.len() == HEADER_BYTES {
                self.left = body_bytes(&self.header)?;
                self.header.clear();
            }
        }
        let mut space = vec![0; self.left.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let arrived = part.filled();
        buf.put_slice(arrived);
        self.left -= arrived.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_handshake {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.unwrapped.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let message = std::mem::take(&mut self.unwrapped);
        self.out.extend(packet(&message));
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The encrypted stream. The driver's own PRELOGIN does not reach the server.
pub(super) struct Verified {
    stream: TlsStream<Wrapped>,
    /// Header of the driver's PRELOGIN, as far as it was written.
    header: Vec<u8>,
    /// Bytes of it still to come.
    left: usize,
    /// The answer to it, as far as it was not read.
    answer: Vec<u8>,
}

impl Verified {
    /// Takes the next bytes of the driver's PRELOGIN from the front of `bytes`; returns how many.
    fn swallow(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.left.min(bytes.len());
        self.left -= taken;
        if self.header.len() < HEADER_BYTES {
            self.header.extend_from_slice(&bytes[..taken]);
            if self.left == 0 {
                self.left = body_bytes(&self.header)?;
            }
        }
        Ok(taken)
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Verified(verified) if !verified.answer.is_empty() => {
                let count = verified.answer.len().min(buf.remaining());
                buf.put_slice(&verified.answer[..count]);
                verified.answer.drain(..count);
                Poll::Ready(Ok(()))
            }
            Transport::Verified(verified) => Pin::new(&mut verified.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Verified(verified) if verified.left > 0 => Poll::Ready(verified.swallow(bytes)),
            Transport::Verified(verified) => Pin::new(&mut verified.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Verified(verified) => Pin::new(&mut verified.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Verified(verified) => Pin::new(&mut verified.stream).poll_shutdown(cx),
        }
    }
}
