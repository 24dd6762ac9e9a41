//! A session by PostgreSQL's protocol, version 3: simple queries, parameters in text form, copies in binary form.
//!
//! A crate for it was not taken: with any of them shared crates of the tree change, and what is needed is little.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::dialect::PostgresDialect;
use super::encode::Encoder;
use super::login::{self, SCRAM, Scram};
use super::options::{Options, TlsMode};
use super::tls;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::sql::connection::{Connection, CopyInto, Server};
use crate::sink::sql::dialect::Dialect;
use crate::sink::sql::statement::{Row, Statement};

/// For all of the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of rows that are sent in one message.
const CHUNK: usize = 256 << 10;
/// The largest message of a server that is taken; a row of ours is far smaller.
const MAX_MESSAGE: usize = 1 << 30;

/// See [`Server`].
#[derive(Debug)]
pub(in crate::sink::sql) struct PostgresServer {
    options: Options,
    dialect: PostgresDialect,
}

impl PostgresServer {
    /// From a connection string. Connects to nothing.
    pub(in crate::sink::sql) fn from_url(url: &Url) -> Result<Self> {
        Ok(Self { options: Options::from_url(url)?, dialect: PostgresDialect })
    }
}

#[async_trait]
impl Server for PostgresServer {
    fn dialect(&self) -> &dyn Dialect {
        &self.dialect
    }

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(&self.options)).await;
        let session = opened.or_fail(Kind::Target, "The database server does not answer")?;
        Ok(Box::new(session.hint("check host, port, user, password and ssl of the connection string")?))
    }
}

async fn open(options: &Options) -> Result<Session> {
    match options.tls {
        TlsMode::Disable => open_once(options, Tls::No).await,
        TlsMode::Allow => match open_once(options, Tls::No).await {
            // The server may want TLS.
            Err(error) if error.get("sqlstate") == Some("28000") => open_once(options, Tls::Must).await,
            other => other,
        },
        TlsMode::Prefer => match open_once(options, Tls::May).await {
            // The server may not let us in by TLS, or speak it badly.
            Err(error) if error.get("sqlstate").is_none_or(|state| state == "28000") => {
                open_once(options, Tls::No).await.map_err(|_| error)
            }
            other => other,
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => open_once(options, Tls::Must).await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    No,
    May,
    Must,
}

async fn open_once(options: &Options, tls: Tls) -> Result<Session> {
    let lost = "The database server cannot be reached";
    let mut stream = TcpStream::connect((options.host.as_str(), options.port)).await.or_fail(Kind::Target, lost)?;
    stream.set_nodelay(true).or_fail(Kind::Target, lost)?;
    if tls == Tls::No {
        return Session::greet(Box::new(stream), options).await;
    }
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.or_fail(Kind::Target, lost)?;
    // One byte only: more than one would have come from somebody in between.
    match stream.read_u8().await.or_fail(Kind::Target, lost)? {
        b'S' => Session::greet(Box::new(tls::secure(stream, options).await?), options).await,
        _ if tls == Tls::Must => Err(Error::new(Kind::Target, "The database server has no TLS")
            .hint("set up TLS there, or allow a connection without with ssl=prefer")),
        _ => Session::greet(Box::new(stream), options).await,
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One session. After an error of the stream it is broken; after an error of the server it goes on, at the next `ReadyForQuery`.
struct Session {
    stream: tokio::io::BufReader<Box<dyn Stream>>,
    /// Results not yet read up to their `ReadyForQuery`: copies are not waited for.
    owed: usize,
    /// `I` idle, `T` in a transaction, `E` in a failed one.
    state: u8,
    /// A message was begun and not ended; nothing can be made of the stream any more.
    broken: bool,
}

/// A message to the server, its length filled in at the end.
fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|part| part.len()).sum::<usize>() + 4;
    let mut text = Vec::with_capacity(length + 1);
    if kind != 0 {
        text.push(kind);
    }
    text.extend_from_slice(&(length as u32).to_be_bytes());
    body.iter().for_each(|part| text.extend_from_slice(part));
    text
}

fn lost(error: std::io::Error) -> Error {
    Error::new(Kind::Target, "The connection to the database was lost")
        .hint("nothing of the table was changed; run it again")
        .caused_by(error)
}

fn nonsense() -> Error {
    Error::new(Kind::Target, "The database server answers what was not asked").hint("check that it is PostgreSQL")
}

impl Session {
    async fn greet(stream: Box<dyn Stream>, options: &Options) -> Result<Self> {
        let stream = tokio::io::BufReader::new(stream);
        let mut session = Self { stream, owed: 0, state: b'I', broken: false };
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in [
            ("user", options.user.as_str()),
            ("database", &options.database),
            ("application_name", "daplake"),
            ("client_encoding", "UTF8"),
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO"),
            ("standard_conforming_strings", "on"),
            // So that the catalogue's names are whole, whatever the user's path is.
            ("search_path", "pg_catalog"),
            ("client_min_messages", "warning"),
        ] {
            for text in [name, value] {
                body.extend_from_slice(text.as_bytes());
                body.push(0);
            }
        }
        body.push(0);
        session.send(&message(0, &[&body])).await?;
        session.log_in(options).await?;
        session.owed = 1;
        session.drain(None).await?;
        Ok(session)
    }

    async fn log_in(&mut self, options: &Options) -> Result<()> {
        let password = options.password.as_ref().map(|password| password.reveal());
        let wanted = || {
            password.ok_or_else(|| {
                Error::new(Kind::Target, "The database server wants a password, and the connection string has none")
            })
        };
        let mut scram = None;
        loop {
            let (kind, body) = self.receive().await?;
            let code = body.get(..4).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
            let rest = body.get(4..).unwrap_or_default();
            match (kind, code) {
                (b'E', _) => return Err(server_error(&body)),
                (b'N' | b'S', _) => {}
                (b'R', Some(0)) => return Ok(()),
                (b'R', Some(3)) => self.send(&message(b'p', &[wanted()?.as_bytes(), &[0]])).await?,
                (b'R', Some(5)) => {
                    let answer = login::md5(&options.user, wanted()?, rest);
                    self.send(&message(b'p', &[answer.as_bytes(), &[0]])).await?;
                }
                (b'R', Some(10)) => {
                    if !rest.split(|byte| *byte == 0).any(|method| method == SCRAM.as_bytes()) {
                        return Err(unknown_login());
                    }
                    let begun = Scram::new(wanted()?, uuid::Uuid::new_v4().simple().to_string());
                    let first = begun.first();
                    let length = (first.len() as u32).to_be_bytes();
                    self.send(&message(b'p', &[SCRAM.as_bytes(), &[0], &length, first.as_bytes()])).await?;
                    scram = Some(begun);
                }
                (b'R', Some(11)) => {
                    let text = std::str::from_utf8(rest).map_err(|_| nonsense())?;
                    let proof = scram.as_mut().and_then(|scram| scram.prove(text)).ok_or_else(nonsense)?;
                    self.send(&message(b'p', &[proof.as_bytes()])).await?;
                }
                (b'R', Some(12)) => {
                    let text = std::str::from_utf8(rest).map_err(|_| nonsense())?;
                    if !scram.as_ref().is_some_and(|scram| scram.is_server(text)) {
                        return Err(Error::new(Kind::Target, "The database server does not know the password it asks for"));
                    }
                }
                (b'R', Some(_)) => return Err(unknown_login()),
                _ => return Err(nonsense()),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.broken = true;
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        written.await.map_err(lost)?;
        self.broken = false;
        Ok(())
    }

    async fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        // Dropped in the middle, the rest of a message would be taken for the next.
        self.broken = true;
        let kind = self.stream.read_u8().await.map_err(lost)?;
        let length = self.stream.read_u32().await.map_err(lost)? as usize;
        let length = length.checked_sub(4).filter(|length| *length <= MAX_MESSAGE).ok_or_else(nonsense)?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.map_err(lost)?;
        self.broken = false;
        Ok((kind, body))
    }

    /// Reads all results that are owed: rows of all, and the number of changed rows of the last. The first error wins.
    async fn drain(&mut self, mut rows: Option<&mut Vec<Row>>) -> Result<u64> {
        let mut failure = None;
        let mut changed = 0;
        while self.owed > 0 {
            let (kind, body) = self.receive().await?;
            match kind {
                b'Z' => {
                    self.owed -= 1;
                    self.state = body.first().copied().unwrap_or(b'E');
                }
                b'E' => {
                    let error = server_error(&body);
                    failure.get_or_insert(error);
                }
                b'D' => {
                    if let Some(rows) = rows.as_deref_mut() {
                        rows.push(row(&body).ok_or_else(nonsense)?);
                    }
                }
                b'C' => {
                    let tag = String::from_utf8_lossy(&body);
                    let number = tag.trim_end_matches('\0').rsplit(' ').next().and_then(|word| word.parse().ok());
                    changed = number.unwrap_or(0);
                }
                // Notices may quote values; what they tell is of no use here.
                _ => {}
            }
        }
        match failure {
            None => Ok(changed),
            Some(error) => Err(error),
        }
    }

    async fn ask(&mut self, statement: &Statement) -> Result<()> {
        let text = statement.text.as_bytes();
        if statement.parameters.is_empty() {
            self.send(&message(b'Q', &[text, &[0]])).await?;
        } else {
            let mut bind = vec![0, 0, 0, 0];
            bind.extend_from_slice(&(statement.parameters.len() as u16).to_be_bytes());
            for parameter in &statement.parameters {
                match parameter {
                    None => bind.extend_from_slice(&(-1_i32).to_be_bytes()),
                    Some(value) => {
                        bind.extend_from_slice(&(value.len() as i32).to_be_bytes());
                        bind.extend_from_slice(value.as_bytes());
                    }
                }
            }
            bind.extend_from_slice(&[0, 0]);
            let mut all = message(b'P', &[&[0], text, &[0, 0, 0]]);
            all.extend(message(b'B', &[&bind]));
            all.extend(message(b'E', &[&[0, 0, 0, 0, 0]]));
            all.extend(message(b'S', &[]));
            self.send(&all).await?;
        }
        self.owed += 1;
        Ok(())
    }
}

fn unknown_login() -> Error {
    Error::new(Kind::Target, "The database server wants a kind of login that is not known here")
        .hint("let it take SCRAM-SHA-256, MD5 or plain passwords")
}

fn row(body: &[u8]) -> Option<Row> {
    let mut left = body.get(2..)?;
    let mut row = Row::new();
    while !left.is_empty() {
        let (length, rest) = left.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        left = rest;
        row.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) => {
                let value = left.get(..length)?;
                left = &left[length..];
                Some(String::from_utf8(value.to_vec()).ok()?)
            }
        });
    }
    Some(row)
}

/// What the server says, without values: its sentences of classes 22 (data) and 23 (constraints) quote them.
fn server_error(body: &[u8]) -> Error {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        fields.find(|field| field[0] == wanted).map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    let state = field(b'C').unwrap_or_default();
    let (kind, message) = match &state[..2.min(state.len())] {
        "22" | "23" => (Kind::Data, "The database refuses a value"),
        "28" => (Kind::Target, "The database server does not let this user in"),
        "40" | "55" => (Kind::Conflict, "The database gave way to somebody else"),
        "42" => (Kind::Target, "The database refuses a statement"),
        "53" => (Kind::Resources, "The database server has no room"),
        "57" | "08" => (Kind::Target, "The database server ended the connection"),
        _ => (Kind::Target, "The database cannot do it"),
    };
    let mut error = Error::new(kind, message).with("sqlstate", &state);
    let may_quote_values = matches!(kind, Kind::Data);
    for (name, letter) in [("table", b't'), ("column", b'c'), ("constraint", b'n')] {
        if let (true, Some(value)) = (may_quote_values, field(letter)) {
            error = error.with(if name == "table" { "relation" } else { name }, value);
        }
    }
    if !may_quote_values {
        let mut text = field(b'M').unwrap_or_default();
        // What depends on a column that is to change, by name.
        if let Some(detail) = field(b'D').filter(|_| state == "0A000" || state == "2BP01") {
            text = format!("{text}: {detail}");
            error = error.hint("drop what depends on it, run again, and make it anew");
        }
        error = error.caused_by(text);
    }
    error
}

#[async_trait]
impl Connection for Session {
    async fn execute(&mut self, statement: &Statement) -> Result<u64> {
        // What the last copy has to say belongs to the copy.
        self.drain(None).await?;
        tracing::debug!(sql = statement.text, "Statement");
        self.ask(statement).await?;
        self.drain(None).await
    }

    async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        self.drain(None).await?;
        tracing::debug!(sql = statement.text, "Query");
        self.ask(statement).await?;
        let mut rows = Vec::new();
        self.drain(Some(&mut rows)).await?;
        Ok(rows)
    }

    /// Sends the command and the rows without waiting for an answer; the server works on them while the next batch is made.
    async fn copy_in(&mut self, into: &CopyInto, batch: &RecordBatch) -> Result<u64> {
        let encoder = Encoder::new(into, batch)?;
        self.drain(None).await?;
        let names = into.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let command = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", into.table);
        self.send(&message(b'Q', &[command.as_bytes(), &[0]])).await?;
        let mut chunk = vec![b'd', 0, 0, 0, 0];
        chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        let mut sent = 0;
        for row in 0..batch.num_rows() {
            if let Err(error) = encoder.row(row, &mut chunk) {
                // The server is told, so that the session can still say what to do with the transaction.
                self.send(&message(b'f', &[b"given up\0"])).await?;
                self.owed += 1;
                let _ = self.drain(None).await;
                return Err(error);
            }
            if chunk.len() >= CHUNK {
                sent += self.send_chunk(&mut chunk).await?;
            }
        }
        chunk.extend_from_slice(&(-1_i16).to_be_bytes());
        sent += self.send_chunk(&mut chunk).await?;
        self.send(&message(b'c', &[])).await?;
        self.owed += 1;
        Ok(sent)
    }

    fn is_idle(&self) -> bool {
        !self.broken && self.owed == 0 && self.state == b'I'
    }

    async fn is_alive(&mut self) -> bool {
        // A server that has something to say to an idle session says goodbye.
        futures::poll!(std::pin::pin!(self.stream.fill_buf())).is_pending()
    }
}

impl Session {
    async fn send_chunk(&mut self, chunk: &mut Vec<u8>) -> Result<u64> {
        let length = (chunk.len() - 1) as u32;
        chunk[1..5].copy_from_slice(&length.to_be_bytes());
        self.send(chunk).await?;
        let sent = chunk.len() as u64 - 5;
        chunk.truncate(5);
        Ok(sent)
    }
}
