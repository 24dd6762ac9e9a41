//! Mail by SMTP: one plain text message for the runs of a process.

use std::path::Path;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Mailboxes, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;
use crate::tls_roots;

/// Timeout of each step of the conversation.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the whole conversation.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where to send mail, and by which server.
#[derive(Clone)]
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    host: String,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The transport holds the password.
        f.debug_struct("Mail").field("host", &self.host).field("to", &self.to.len()).finish_non_exhaustive()
    }
}

/// The settings of [`Mail`].
#[derive(Debug, Default)]
pub struct MailOptions<'a> {
    /// Recipients, such as `Data team <data@example.org>`.
    pub to: &'a [String],
    /// The sender [default: the user of the server if it is an address, else the first recipient].
    pub from: Option<&'a str>,
    /// `smtp://user@host:587` for STARTTLS, `smtps://user@host:465` for TLS from the beginning, or `smtp://host:25?tls=off`.
    pub server: Option<&'a Secret>,
    /// Password of the user, unless the URL has it.
    pub password: Option<&'a Secret>,
    /// PEM file with additional root certificates.
    pub ca_bundle: Option<&'a Path>,
}

impl Mail {
    /// Connects to nothing.
    ///
    /// # Errors
    /// Kind `Usage` for addresses and URLs that cannot be used, and for a password that would be sent in clear text. They are not
    /// repeated.
    pub fn new(options: &MailOptions<'_>) -> Result<Self> {
        let usage = |message: &'static str, hint: &'static str| Error::new(Kind::Usage, message).hint(hint);
        let server = options.server.ok_or_else(|| {
            usage("Mail needs a server", "give --notify-smtp, such as smtp://user@mail.example.org:587, or `smtp` in [notify]")
        })?;
        // The cause would contain the URL.
        let url = Url::parse(server.reveal()).ok().filter(|url| matches!(url.scheme(), "smtp" | "smtps"));
        let form = || usage("The mail server is not a URL", "write it as smtp://user@host:587 or smtps://user@host:465");
        let url = url.ok_or_else(form)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(form)?.to_owned();
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let is_plain = match tls.as_deref() {
            Some("off") => true,
            Some("on") | None => false,
            Some(_) => return Err(usage("The value of tls of the mail server is unknown", "write ?tls=off, or leave it out")),
        };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user = Some(decoded(url.username())).filter(|user| !user.is_empty());
        let password = url.password().map(decoded).or_else(|| options.password.map(|password| password.reveal().to_owned()));
        let is_loopback = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        if is_plain && password.is_some() && !is_loopback {
            return Err(usage("The password for the mail server would be sent without encryption", "leave out tls=off"));
        }
        let is_wrapped = url.scheme() == "smtps";
        let default_port = if is_wrapped { 465 } else { 587 };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host.trim_matches(['[', ']']))
            .port(url.port().unwrap_or(default_port))
            .timeout(Some(STEP_TIMEOUT));
        if !is_plain {
            let parameters = tls_parameters(&host, options.ca_bundle)?;
            builder = builder.tls(if is_wrapped { Tls::Wrapper(parameters) } else { Tls::Required(parameters) });
        }
        if let (Some(user), Some(password)) = (user.clone(), password) {
            builder = builder.credentials(Credentials::new(user, password));
        }
        let address = |text: &str| {
            text.trim().parse::<Mailbox>().map_err(|_| {
                usage("An address for mail cannot be used", "write it as name@example.org, or as Name <name@example.org>")
            })
        };
        let to: Vec<Mailbox> = options.to.iter().map(|text| address(text)).collect::<Result<_>>()?;
        let Some(first) = to.first() else { return Err(usage("Mail needs a recipient", "give --notify-email")) };
        let from = match options.from {
            Some(text) => address(text)?,
            None => user.and_then(|user| user.parse().ok()).unwrap_or_else(|| first.clone()),
        };
        Ok(Self { transport: builder.build(), host, from, to })
    }

    /// The server's name.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Sends one message. Kind `Unavailable` if trying again can help, else `Target`.
    pub(super) async fn send(&self, id: &str, subject: &str, body: &str) -> Result<()> {
        let generated = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let to: Mailboxes = self.to.iter().cloned().collect();
        let message = Message::builder()
            .from(self.from.clone())
            .mailbox(lettre::message::header::To::from(to))
            .subject(subject)
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            // No automatic answers, please.
            .raw_header(generated)
            .header(ContentType::TEXT_PLAIN)
            .body(body.to_owned())
            .context(Kind::Bug, "The mail cannot be composed")?;
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(explained(error)),
            Err(_) => Err(Error::new(Kind::Unavailable, "The mail server did not respond in time")),
        }
    }
}

/// TLS with the root certificates of the system and of `--ca-bundle`.
fn tls_parameters(host: &str, ca_bundle: Option<&Path>) -> Result<TlsParameters> {
    let mut builder = TlsParameters::builder(host.trim_matches(['[', ']']).to_owned());
    if let Some(path) = ca_bundle {
        // The same messages as for HTTP.
        tls_roots::read_bundle(path)?;
        let pem = std::fs::read(path).context(Kind::Usage, "The CA bundle cannot be read")?;
        builder = builder
            .add_root_certificate(Certificate::from_pem(&pem).context(Kind::Usage, "The CA bundle cannot be used for mail")?);
    }
    builder.build_rustls().context(Kind::Usage, "TLS for mail cannot be set up")
}

fn explained(error: lettre::transport::smtp::Error) -> Error {
    let code = error.status().map(u16::from);
    let new = |kind: Kind, message: &'static str| Error::new(kind, message);
    let text = error.to_string();
    let explained = match code {
        Some(534 | 535) => new(Kind::Target, "The mail server rejected user or password")
            .hint("check `smtp_password`; mailboxes with a second factor need an app password"),
        Some(530) => {
            new(Kind::Target, "The mail server wants a login").hint("write the user into the URL: smtp://user@host:587")
        }
        _ if error.is_permanent() => new(Kind::Target, "The mail server rejected the message"),
        _ if error.is_tls() || text.contains("certificate") => {
            new(Kind::Target, "No trusted connection to the mail server").hint(tls_roots::hint())
        }
        _ if text.contains("STARTTLS") => new(Kind::Target, "The mail server offers no encryption")
            .hint("use smtps:// for TLS from the start; add ?tls=off for a server on this machine"),
        // The server has no mechanism in common, or the addresses are not accepted.
        _ if error.is_client() => new(Kind::Target, "The mail server does not support what the message needs"),
        _ => new(Kind::Unavailable, "The mail server did not respond"),
    };
    let explained = match code {
        Some(code) => explained.with_field("status", code),
        None => explained,
    };
    explained.caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(server: &str, from: Option<&str>, password: Option<&str>) -> Result<Mail> {
        let (server, password) = (Secret::new(server), password.map(Secret::new));
        let to = ["Data team <data@example.org>".to_owned()];
        Mail::new(&MailOptions { to: &to, from, server: Some(&server), password: password.as_ref(), ca_bundle: None })
    }

    #[tokio::test]
    async fn the_sender_is_the_user_or_the_recipient() {
        let from = |server: &str, from: Option<&str>| mail(server, from, Some("p")).unwrap().from.email.to_string();
        assert_eq!(from("smtp://robot%40school.org@mail.school.org", None), "robot@school.org");
        assert_eq!(from("smtps://robot@mail.school.org", None), "data@example.org");
        assert_eq!(from("smtps://robot@mail.school.org", Some("me@x.org")), "me@x.org");
    }

    #[tokio::test]
    async fn unusable_servers_are_refused_without_repeating_them() {
        for (server, password) in [
            ("mail.example.org", None),
            ("https://u:planted@mail.example.org", None),
            ("smtp://", None),
            ("smtp://u:planted@mail.example.org?tls=off", None),
            ("smtp://u@mail.example.org?tls=off", Some("planted")),
            ("smtp://u:planted@mail.example.org?tls=maybe", None),
        ] {
            let error = mail(server, None, password).unwrap_err();
            let text = format!("{error} {:?} {:?}", error.hint_text(), error.causes());
            assert!(
                error.kind() == Kind::Usage && error.hint_text().is_some() && !text.contains("planted"),
                "{server}: {text}"
            );
        }
        assert!(mail("smtp://u@localhost:25?tls=off", None, Some("p")).is_ok());
        let shown = format!("{:?}", mail("smtps://u:planted@mail.example.org", None, None).unwrap());
        assert!(!shown.contains("planted"), "{shown}");
    }
}
