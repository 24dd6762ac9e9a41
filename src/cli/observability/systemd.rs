//! Notifies systemd of the state of a service: ready, status, stopping, watchdog. Each message is a datagram to the socket of
//! `NOTIFY_SOCKET`; without that variable nothing is sent. Errors are ignored.
//!
//! The crate `sd-notify` would be a new dependency for these 40 lines, and it opens the socket for each message.

use std::time::Duration;

/// The notification socket, if there is one.
#[derive(Debug, Default)]
pub(in crate::cli) struct Systemd {
    #[cfg(unix)]
    socket: Option<std::os::unix::net::UnixDatagram>,
    /// Interval of the watchdog.
    pub(in crate::cli) watchdog: Option<Duration>,
}

impl Systemd {
    /// `path` is the value of `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    pub(in crate::cli) fn new((path, watchdog): (Option<String>, Option<Duration>)) -> Self {
        #[cfg(unix)]
        return Self { socket: path.and_then(|path| connect(&path).ok()), watchdog };
        #[cfg(not(unix))]
        return Self { watchdog: path.and(watchdog) };
    }

    /// Sends assignments such as `READY=1`, one per line.
    pub(in crate::cli) fn notify(&self, assignments: &str) {
        #[cfg(unix)]
        if let Some(socket) = &self.socket {
            // Not blocking: a full socket must not stop the service.
            let _ = socket.set_nonblocking(true).and_then(|()| socket.send(assignments.as_bytes()));
        }
        #[cfg(not(unix))]
        let _ = assignments;
    }

    /// Sends the text that `systemctl status` shows.
    pub(in crate::cli) fn status(&self, text: &str) {
        self.notify(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Feeds the watchdog for ever.
    pub(in crate::cli) async fn feed_watchdog(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(watchdog / 2);
        loop {
            ticks.tick().await;
            self.notify("WATCHDOG=1");
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
