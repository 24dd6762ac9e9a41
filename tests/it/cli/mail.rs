//! Notifications by mail, to an SMTP server that follows a script: STARTTLS, TLS from the beginning, logins, and what goes wrong. Its
//! certificate is signed by an authority that only `--ca-bundle` names.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use daplake::demo::serve::{Fault, Times};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{Run, World, canvas, school};

const PASSWORD: &str = "planted-mail-password";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Tls {
    None,
    Start,
    Wrapped,
}

/// What a client said in one conversation.
#[derive(Debug, Default)]
struct Conversation {
    /// Commands before and after encryption.
    clear: Vec<String>,
    encrypted: Vec<String>,
    /// Lines of the message.
    message: String,
}

impl Conversation {
    /// The message without the line breaks of its encoding.
    fn text(&self) -> String {
        self.message.replace("=\n", "").replace("=3D", "=")
    }
}

struct Mailbox {
    port: u16,
    heard: Receiver<Conversation>,
    folder: tempfile::TempDir,
}

fn openssl(folder: &Path, line: &str) {
    let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Mailbox {
    /// A server whose first `busy` conversations end with 421. `None` without `openssl`.
    async fn start(tls: Tls, busy: usize) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("not run: mail (install openssl)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(folder.path(), &format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=ca"));
        std::fs::write(folder.path().join("extensions"), "subjectAltName=DNS:localhost").unwrap();
        openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        openssl(
            folder.path(),
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
        );
        let pem = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem("server.crt")).unwrap();
        let private = PrivateKeyDer::from_pem_slice(&pem("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], private)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, heard) = channel();
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                let is_busy = number <= busy;
                tokio::spawn(converse(stream, tls, acceptor.clone(), is_busy, send.clone()));
            }
        });
        Some(Self { port, heard, folder })
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://robot%40school.org@localhost:{}", self.port)
    }

    /// A sync that reports to two recipients.
    fn sync(&self, world: &World, scheme: &str, more: &[&str]) -> Run {
        let (ca, url) = (self.folder.path().join("ca.crt"), self.url(scheme));
        let mut command = world.command(&["sync", "--target", "lake", "--jobs-per-minute", "0"]);
        command.args(["--notify-email", "Data team <data@school.org>,it@school.org"]).args(more);
        command.env("DAPLAKE_SMTP", &url).env("DAPLAKE_SMTP_PASSWORD", PASSWORD);
        if !more.contains(&"--ca-bundle") {
            command.arg("--ca-bundle").arg(ca);
        }
        let run = Run::of(command.output().unwrap());
        assert!(!format!("{run:?}").contains(PASSWORD), "{run:?}");
        run
    }

    fn next(&self) -> Conversation {
        self.heard.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

/// One conversation. A login with another password is refused.
async fn converse(stream: tokio::net::TcpStream, tls: Tls, acceptor: TlsAcceptor, is_busy: bool, send: Sender<Conversation>) {
    let mut heard = Conversation::default();
    if tls == Tls::Wrapped {
        let Ok(stream) = acceptor.accept(stream).await else { return drop(send.send(heard)) };
        let mut stream = BufReader::new(stream);
        talk(&mut stream, true, false, is_busy, true, &mut heard).await;
    } else {
        let mut stream = BufReader::new(stream);
        let wants_tls = talk(&mut stream, true, tls == Tls::Start, is_busy, false, &mut heard).await;
        if wants_tls {
            let Ok(stream) = acceptor.accept(stream.into_inner()).await else { return drop(send.send(heard)) };
            let mut stream = BufReader::new(stream);
            talk(&mut stream, false, false, false, true, &mut heard).await;
        }
    }
    let _ = send.send(heard);
}

/// Answers commands until the end, or until the client asks for TLS.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    greets: bool,
    offers_tls: bool,
    is_busy: bool,
    is_encrypted: bool,
    heard: &mut Conversation,
) -> bool {
    use base64::Engine;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("\0robot@school.org\0{PASSWORD}"));
    if greets {
        let greeting = if is_busy { "421 try again later\r\n" } else { "220 localhost ESMTP\r\n" };
        let _ = stream.write_all(greeting.as_bytes()).await;
    }
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        let command = line.trim_end().to_owned();
        let commands = if is_encrypted { &mut heard.encrypted } else { &mut heard.clear };
        commands.push(command.clone());
        let answer = match command.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" if offers_tls => "250-localhost\r\n250 STARTTLS",
            "EHLO" => "250-localhost\r\n250 AUTH PLAIN LOGIN",
            "STARTTLS" => {
                let _ = stream.write_all(b"220 go ahead\r\n").await;
                return true;
            }
            "AUTH" if command.ends_with(&login) => "235 welcome",
            "AUTH" => "535 5.7.8 wrong",
            "DATA" => {
                let _ = stream.write_all(b"354 go ahead\r\n").await;
                loop {
                    line.clear();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 || line == ".\r\n" {
                        break;
                    }
                    heard.message.push_str(&line.replace("\r\n", "\n"));
                }
                "250 queued"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n").await;
                return false;
            }
            _ => "250 ok",
        };
        let _ = stream.write_all(format!("{answer}\r\n").as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_mail_reports_a_new_failure_and_one_its_end() {
    let Some(mailbox) = Mailbox::start(Tls::Start, 0).await else { return };
    let world = World::new(school(&[canvas("users"), canvas("accounts")])).await;
    let sync = || mailbox.sync(&world, "smtp", &["--notify-on", "change"]);
    sync().assert_code(0);
    world.school.advance();
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    sync().assert_code(5);
    let heard = mailbox.next();
    assert!(heard.clear.iter().all(|line| line.starts_with("EHLO") || line == "STARTTLS"), "{heard:?}");
    let recipients: Vec<&String> = heard.encrypted.iter().filter(|line| line.starts_with("RCPT")).collect();
    assert_eq!(recipients, ["RCPT TO:<data@school.org>", "RCPT TO:<it@school.org>"]);
    assert!(heard.encrypted.iter().any(|line| line.starts_with("MAIL FROM:<robot@school.org>")), "{heard:?}");
    let text = heard.text();
    for part in [
        "Subject: daplake: 1 of 2 tables failed\n",
        "From: robot@school.org\n",
        "Data team",
        "Auto-Submitted: auto-generated\n",
        "\ncanvas.users: ",
        "What to do: ",
        "Tables   2: ",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // The same failure again is no news.
    for _ in 0..2 {
        sync().assert_code(5);
    }
    world.server.clear_faults();
    world.school.advance();
    sync().assert_code(0);
    let text = mailbox.next().text();
    assert!(text.contains("2 tables are up to date") && text.contains("recovered: canvas.users"), "{text}");
    sync().assert_code(0);
    assert!(mailbox.heard.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_mail_server_is_tried_again_and_tls_can_begin_at_once() {
    let Some(mailbox) = Mailbox::start(Tls::Wrapped, 1).await else { return };
    let world = World::new(school(&[canvas("accounts")])).await;
    mailbox.sync(&world, "smtps", &["--notify-on", "always"]).assert_code(0);
    assert_eq!(mailbox.next().message, "", "it was busy");
    let heard = mailbox.next();
    assert!(heard.clear.is_empty() && heard.text().contains("Subject: daplake: 1 table is up to date"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_cannot_be_sent_changes_no_run_and_says_what_to_do() {
    let Some(mailbox) = Mailbox::start(Tls::Start, 0).await else { return };
    let world = World::new(school(&[canvas("accounts")])).await;
    let always = ["--notify-on", "always"];
    // A certificate that is not trusted gets no password.
    let other = mailbox.folder.path().join("other.crt");
    openssl(
        mailbox.folder.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout o.key -out other.crt -subj /CN=o",
    );
    let run = mailbox.sync(&world, "smtp", &[&always[..], &["--ca-bundle", other.to_str().unwrap()]].concat());
    run.assert_code(0).assert_says(&["could not be delivered", "trusted"]);
    assert!(mailbox.next().encrypted.is_empty());
    // A server without encryption gets none either, unless that is wanted.
    let plain = Mailbox::start(Tls::None, 0).await.unwrap();
    plain.sync(&world, "smtp", &always).assert_code(0).assert_says(&["could not be delivered", "no encryption", "tls=off"]);
    assert!(plain.next().clear.iter().all(|line| line.starts_with("EHLO") || line == "QUIT"));
    let open = format!("{}?tls=off", plain.url("smtp"));
    plain.sync(&world, "smtp", &[&always[..], &["--notify-smtp", &open]].concat()).assert_code(0);
    assert!(plain.next().text().contains("up to date"));
    // A wrong password.
    let wrong = [&always[..], &["--notify-smtp-password", "wrong"]].concat();
    mailbox.sync(&world, "smtp", &wrong).assert_code(0).assert_says(&["rejected user or password", "app password"]);
    // Wrong settings end the run before it starts.
    mailbox.sync(&world, "https", &always).assert_code(5).assert_says(&["mail server is not a URL"]);
    mailbox.sync(&world, "smtp", &["--notify-email-from", "nobody"]).assert_code(5).assert_says(&["name@example.org"]);
}
