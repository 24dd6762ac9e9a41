//! Root certificates: of the system, of `--ca-bundle`, and a system that has none, such as an empty container.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::{Run, bare_command};

/// A TLS server on localhost (`openssl s_server`) with a certificate signed by the authority in `ca.crt`. It sends no responses.
struct Server {
    child: Child,
    /// Lines of the requests, as the server decrypts them.
    requests: Receiver<String>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(folder: &Path, line: &str) {
    let done = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Server {
    /// `None` if there is no `openssl`.
    fn start() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("not run: root certificates (install openssl)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for authority in ["ca", "other"] {
            let line = format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}");
            openssl(folder.path(), &line);
        }
        std::fs::write(folder.path().join("extensions"), "subjectAltName=DNS:localhost").unwrap();
        openssl(folder.path(), &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        openssl(
            folder.path(),
            "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt",
        );
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-cert", "server.crt", "-key", "server.key", "-quiet"])
            .current_dir(folder.path())
            // It would exit at the end of its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (send, requests) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, requests, port, folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call to the server, with this file as the system's root certificates.
    fn list(&self, system: &str, more: &[&str]) -> Command {
        let address = format!("https://localhost:{}", self.port);
        let call = ["--non-interactive", "list", "--namespace", "canvas", "--client-id", "a#b", "--client-secret", "c"];
        let mut command = bare_command(&[&call[..], &["--base-url", &address], more].concat());
        command.env("SSL_CERT_FILE", self.file(system)).env("SSL_CERT_DIR", self.file("no-such-folder"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

#[test]
fn missing_root_certificates_are_not_mistaken_for_an_inspecting_proxy() {
    let Some(server) = Server::start() else { return };
    std::fs::write(server.file("empty.crt"), "").unwrap();
    for (system, word) in [("empty.crt", "ca-certificates"), ("other.crt", "proxy")] {
        let run = Run::of(server.list(system, &[]).output().unwrap());
        run.assert_code(5).assert_says(&["certificate is not trusted", word, "--ca-bundle"]);
    }
    assert!(server.requests.try_recv().is_err(), "nothing is sent to a server that is not trusted");
    let bundle = server.file("ca.crt");
    for (system, more) in [("empty.crt", &["--ca-bundle", bundle.to_str().unwrap()][..]), ("ca.crt", &[])] {
        let mut child = server.list(system, more).spawn().unwrap();
        let request = server.requests.recv_timeout(Duration::from_secs(60));
        child.kill().unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        // The line may begin with the end of the previous request.
        assert!(request.is_ok_and(|line| line.contains("POST ")), "{system}: {run:?}");
        while server.requests.recv_timeout(Duration::from_millis(200)).is_ok() {}
    }
}
