//! Sessions with PostgreSQL, with the driver `tokio-postgres`: when to use TLS, how rows are copied, what an error may show.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, CopyInSink, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::dialect::PostgresDialect;
use super::encode::Encoder;
use super::errors::{self, Identity};
use super::options::Options;
use super::types::SqlType;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::sql::connection::{Connection, CopyPlan, CopyTarget, Server, SystemRoots, TlsMode, tls_config};
use crate::sink::sql::dialect::{Dialect, Row, Statement, Transactions};

/// Bytes of rows that are sent in one message.
const CHUNK: usize = 256 << 10;
/// Bytes of one copy. The server reports refused rows only at its end.
const COPY: u64 = 64 << 20;
/// A session that was idle for longer is tested before use: firewalls drop connections, and servers restart.
const REST: Duration = Duration::from_millis(100);
/// The time for the answer to that test.
const ANSWER: Duration = Duration::from_secs(5);

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
        let opening = open(&self.options);
        let opened = match self.options.connect_timeout {
            None => opening.await,
            Some(timeout) => tokio::time::timeout(timeout, opening)
                .await
                .unwrap_or_else(|_| Err(Error::new(Kind::Target, "The database server does not answer"))),
        };
        Ok(Box::new(opened.hint("check host, port, user, password and ssl of the connection string")?))
    }
}

/// Follows the TLS modes of libpq.
async fn open(options: &Options) -> Result<Session> {
    let is_refused = |error: &Error| error.get("sqlstate") == Some("28000");
    // Unix sockets have no TLS, whatever the mode.
    if options.host().starts_with('/') {
        return open_once(options, SslMode::Disable).await.map_err(|failed| failed.error);
    }
    let opened = match options.tls {
        TlsMode::Disable => open_once(options, SslMode::Disable).await,
        TlsMode::Allow => match open_once(options, SslMode::Disable).await {
            // The server may insist on TLS.
            Err(failed) if is_refused(&failed.error) => open_once(options, SslMode::Require).await,
            other => other,
        },
        TlsMode::Prefer => match open_once(options, SslMode::Prefer).await {
            // The server may refuse logins over TLS, or fail at it.
            Err(failed) if failed.tls || is_refused(&failed.error) => {
                open_once(options, SslMode::Disable).await.map_err(|_| failed)
            }
            other => other,
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => open_once(options, SslMode::Require).await,
    };
    opened.map_err(|failed| failed.error)
}

async fn open_once(options: &Options, ssl_mode: SslMode) -> Result<Session, errors::ConnectFailure> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(options.host())
        .port(options.port)
        .user(&options.user)
        .dbname(&options.database)
        .application_name(&options.application_name)
        .ssl_mode(ssl_mode)
        // Detects a dropped connection within minutes, also during a long statement.
        .keepalives_idle(Duration::from_secs(60))
        .keepalives_interval(Duration::from_secs(10))
        .keepalives_retries(6);
    if let Some(password) = options.password() {
        config.password(password.reveal());
    }
    let tls = MakeRustlsConnect::new(tls_config(options.tls_settings(), SystemRoots::Replaced, rustls::DEFAULT_VERSIONS)?);
    let (client, driver) = config.connect(tls).await.map_err(errors::connecting)?;
    let driver = tokio::spawn(driver);
    let identity = Identity { user: options.user.clone(), database: options.database.clone() };
    Ok(Session {
        client,
        driver: Some(driver),
        identity,
        plan: None,
        copy: None,
        in_transaction: false,
        is_sound: true,
        used: Instant::now(),
    })
}

/// A session. If it is dropped in the middle of something, the connection is cut, and the server rolls back.
struct Session {
    client: Client,
    /// The task that moves the bytes; its result says why a session ended. `None`: the result was taken.
    driver: Option<JoinHandle<Result<(), tokio_postgres::Error>>>,
    identity: Identity,
    /// The copy before, whose types need not be read again.
    plan: Option<Arc<CopyPlan<SqlType>>>,
    copy: Option<Copy>,
    in_transaction: bool,
    /// Nothing is in progress, and nothing was interrupted.
    is_sound: bool,
    used: Instant,
}

/// A copy in progress.
struct Copy {
    plan: Arc<CopyPlan<SqlType>>,
    rows: Pin<Box<CopyInSink<Bytes>>>,
    /// Bytes.
    sent: u64,
    /// Rows.
    count: u64,
}

/// A parameter as text; the server infers its type.
#[derive(Debug)]
struct Text<'s>(Option<&'s str>);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = self.0 else { return Ok(IsNull::Yes) };
        out.put_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A value as the server would print it. Statements with parameters return no other types.
fn text_of(row: &tokio_postgres::Row, index: usize) -> Result<Option<String>, tokio_postgres::Error> {
    fn print<'r, T: ToString + tokio_postgres::types::FromSql<'r>>(
        row: &'r tokio_postgres::Row,
        index: usize,
    ) -> Result<Option<String>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<T>>(index)?.map(|value| value.to_string()))
    }
    match *row.columns()[index].type_() {
        Type::BOOL => Ok(row.try_get::<_, Option<bool>>(index)?.map(|value| if value { "t" } else { "f" }.to_owned())),
        Type::INT2 => print::<i16>(row, index),
        Type::INT4 => print::<i32>(row, index),
        Type::INT8 => print::<i64>(row, index),
        Type::OID => print::<u32>(row, index),
        Type::VOID => Ok(Some(String::new())),
        _ => print::<&str>(row, index),
    }
}

type Answer = (Vec<Row>, u64);

impl Session {
    async fn ask(&mut self, statement: &Statement) -> Result<Answer> {
        // Errors of a copy in progress belong to the copy.
        self.end_copy().await?;
        self.is_sound = false;
        let (begins, ends) = (
            *statement == PostgresDialect.begin(),
            *statement == PostgresDialect.commit() || *statement == PostgresDialect.rollback(),
        );
        let answer = match self.in_transaction || begins || ends {
            true => self.answer(statement).await,
            false => self.answer_alone(statement).await,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(errors::with_grant(self.failed(error).await, &statement.text, &self.identity)),
        };
        if begins {
            self.in_transaction = true;
        } else if ends {
            self.in_transaction = false;
        }
        self.rest();
        Ok(answer)
    }

    async fn answer(&self, statement: &Statement) -> Result<Answer, tokio_postgres::Error> {
        // The extended protocol accepts a single statement only, so that nothing can follow that of a user.
        match statement.parameters.is_empty() && !statement.is_of_user {
            true => self.ask_plainly(&statement.text).await,
            false => self.ask_with(statement).await,
        }
    }

    /// Runs a statement in a transaction of its own, which has the settings. The three messages are sent at once: one round trip.
    async fn answer_alone(&self, statement: &Statement) -> Result<Answer, tokio_postgres::Error> {
        let (begin, commit) = (PostgresDialect.begin(), PostgresDialect.commit());
        let (begun, answer, ended) = tokio::join!(
            biased;
            self.client.batch_execute(&begin.text),
            self.answer(statement),
            self.client.batch_execute(&commit.text)
        );
        begun?;
        let answer = answer?;
        ended?;
        Ok(answer)
    }

    async fn ask_plainly(&self, text: &str) -> Result<Answer, tokio_postgres::Error> {
        let (mut rows, mut changed) = (Vec::new(), 0);
        for message in self.client.simple_query(text).await? {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|index| Ok(row.try_get(index)?.map(str::to_owned)));
                    rows.push(cells.collect::<Result<Row, _>>()?);
                }
                SimpleQueryMessage::CommandComplete(count) => changed = count,
                _ => {}
            }
        }
        Ok((rows, changed))
    }

    async fn ask_with(&self, statement: &Statement) -> Result<Answer, tokio_postgres::Error> {
        let parameters = statement.parameters.iter().map(|value| (Text(value.as_deref()), Type::UNKNOWN));
        let mut answer = Box::pin(self.client.query_typed_raw(&statement.text, parameters).await?);
        let mut rows = Vec::new();
        while let Some(row) = answer.try_next().await? {
            if statement.is_of_user {
                continue;
            }
            rows.push((0..row.len()).map(|index| text_of(&row, index)).collect::<Result<Row, _>>()?);
        }
        Ok((rows, answer.rows_affected().unwrap_or(0)))
    }

    fn rest(&mut self) {
        self.is_sound = true;
        self.used = Instant::now();
    }

    /// The error for an error of the driver. After a refusal the session can continue; without a connection it cannot.
    async fn failed(&mut self, error: tokio_postgres::Error) -> Error {
        if let Some(refusal) = error.as_db_error() {
            if !matches!(refusal.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
                self.rest();
            }
            return errors::refused(refusal);
        }
        if !error.is_closed() {
            return errors::unexpected(error);
        }
        // The driver's task ends with the connection and says why.
        let cause = match self.driver.take() {
            Some(driver) => driver.await.ok().and_then(Result::err).unwrap_or(error),
            None => error,
        };
        cause.as_db_error().map_or_else(|| errors::lost(&cause), errors::refused)
    }

    async fn begin_copy(&mut self, plan: Arc<CopyPlan<SqlType>>) -> Result<Copy> {
        let names = plan.target.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let command = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", plan.target.table);
        tracing::debug!(sql = command, "Copy");
        match self.client.copy_in(&command).await {
            Ok(rows) => Ok(Copy { plan, rows: Box::pin(rows), sent: 0, count: 0 }),
            Err(error) => Err(errors::with_grant(self.failed(error).await, &command, &self.identity)),
        }
    }

    /// The copy's target with its types read, which is done once for all batches of a load.
    fn plan_for(&mut self, target: &CopyTarget) -> Arc<CopyPlan<SqlType>> {
        match &self.plan {
            Some(plan) if plan.target == *target => Arc::clone(plan),
            _ => Arc::clone(self.plan.insert(Arc::new(CopyPlan::new(target, SqlType::parse)))),
        }
    }

    async fn end_copy(&mut self) -> Result<()> {
        let Some(mut copy) = self.copy.take() else { return Ok(()) };
        self.is_sound = false;
        let end = async {
            copy.rows.send(Bytes::from_static(&[0xff, 0xff])).await?;
            copy.rows.as_mut().finish().await
        };
        match end.await {
            Ok(taken) if taken != copy.count => {
                let error = Error::new(Kind::Target, "The database server did not store all rows of a copy");
                Err(error.with_field("sent", copy.count).with_field("stored", taken))
            }
            Ok(_) => {
                self.rest();
                Ok(())
            }
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn send(&mut self, copy: &mut Copy, chunk: Vec<u8>) -> Result<()> {
        copy.sent += chunk.len() as u64;
        match copy.rows.send(Bytes::from(chunk)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn send_rows(&mut self, copy: &mut Copy, encoder: &Encoder, rows: usize) -> Result<()> {
        let room = || Vec::with_capacity(CHUNK + (CHUNK >> 2));
        let mut chunk = room();
        if copy.sent == 0 {
            chunk.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
        }
        for row in 0..rows {
            encoder.row(row, &mut chunk)?;
            if chunk.len() >= CHUNK {
                self.send(copy, std::mem::replace(&mut chunk, room())).await?;
            }
        }
        if !chunk.is_empty() {
            self.send(copy, chunk).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Connection for Session {
    async fn execute(&mut self, statement: &Statement) -> Result<u64> {
        tracing::debug!(sql = statement.shown(), "Statement");
        Ok(self.ask(statement).await?.1)
    }

    async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        tracing::debug!(sql = statement.shown(), "Query");
        Ok(self.ask(statement).await?.0)
    }

    /// Batches continue the copy before them; the next statement ends it. The server processes rows while others are encoded.
    async fn copy_in(&mut self, target: &CopyTarget, batch: &RecordBatch) -> Result<u64> {
        let plan = self.plan_for(target);
        let encoder = Encoder::new(&plan, batch)?;
        if self.copy.as_ref().is_some_and(|copy| !Arc::ptr_eq(&copy.plan, &plan) || copy.sent > COPY) {
            self.end_copy().await?;
        }
        self.is_sound = false;
        let mut copy = match self.copy.take() {
            Some(copy) => copy,
            None => self.begin_copy(plan).await?,
        };
        let before = copy.sent;
        let sent = self.send_rows(&mut copy, &encoder, batch.num_rows()).await;
        if sent.is_err() && !self.client.is_closed() {
            // Dropping the copy cancels it at the server, and the session can still roll back.
            self.rest();
        }
        sent?;
        copy.count += batch.num_rows() as u64;
        let sent = copy.sent - before;
        self.copy = Some(copy);
        self.rest();
        Ok(sent)
    }

    fn is_idle(&self) -> bool {
        self.is_sound && !self.in_transaction && self.copy.is_none() && !self.client.is_closed()
    }

    async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < REST {
            return !self.client.is_closed();
        }
        let answer = tokio::time::timeout(ANSWER, self.client.simple_query(""));
        answer.await.is_ok_and(|answer| answer.is_ok())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // An idle session is closed cleanly; an abandoned statement is ended by cutting the connection.
        if let Some(driver) = self.driver.take_if(|_| !self.is_sound || self.copy.is_some()) {
            driver.abort();
        }
    }
}
