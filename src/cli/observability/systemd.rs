//! Tells systemd how a service is: ready, at work, stopping, alive. One datagram each to the socket that it names; without one,
//! nothing. A failure to tell is no failure of the service.

use std::time::Duration;

/// The other end, if there is one.
#[derive(Debug, Default)]
pub(in crate::cli) struct Systemd {
    #[cfg(unix)]
    socket: Option<std::os::unix::net::UnixDatagram>,
    /// How often it wants a sign of life.
    pub(in crate::cli) watchdog: Option<Duration>,
}

impl Systemd {
    /// `path` is what `NOTIFY_SOCKET` says: a path, or an abstract name behind `@`.
    pub(in crate::cli) fn new((path, watchdog): (Option<String>, Option<Duration>)) -> Self {
        #[cfg(unix)]
        return Self { socket: path.and_then(|path| connect(&path).ok()), watchdog };
        #[cfg(not(unix))]
        return Self { watchdog: path.and(watchdog) };
    }

    /// Such as `READY=1`; several lines are several assignments.
    pub(in crate::cli) fn tell(&self, assignments: &str) {
        #[cfg(unix)]
        if let Some(socket) = &self.socket {
            // Without waiting: a socket that nobody reads must not stop us.
            let _ = socket.set_nonblocking(true).and_then(|()| socket.send(assignments.as_bytes()));
        }
        #[cfg(not(unix))]
        let _ = assignments;
    }

    /// What people read in `systemctl status`.
    pub(in crate::cli) fn status(&self, words: &str) {
        self.tell(&format!("STATUS={}", words.replace('\n', " ")));
    }

    /// Signs of life for ever.
    pub(in crate::cli) async fn live(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(watchdog / 2);
        loop {
            ticks.tick().await;
            self.tell("WATCHDOG=1");
        }
    }
}

#[cfg(unix)]
fn connect(path: &str) -> std::io::Result<std::os::unix::net::UnixDatagram> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = path.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        return Ok(socket);
    }
    socket.connect(path)?;
    Ok(socket)
}
