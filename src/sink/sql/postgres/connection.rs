//! Sessions with PostgreSQL, with the driver `tokio-postgres`: when to use TLS, how rows are copied, what an error may show.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use futures::{FutureExt, SinkExt, TryStreamExt};
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
use crate::sink::sql::connection::{Answer, Connection, CopyPlan, CopyTarget, Server, SystemRoots, TlsMode, tls_config};
use crate::sink::sql::dialect::{Dialect, Row, Statement, Transactions};

/// Bytes of rows that are sent in one message.
const CHUNK: usize = 256 << 10;
/// Bytes of one copy. The server reports refused rows only at its end.
const COPY: u64 = 64 << 20;
/// A session that was idle for longer is tested before use: firewalls drop connections, and servers restart.
const REST: Duration = Duration::from_millis(100);
/// The time for the answer to that test.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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
        prepared: None,
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
    /// The command of the next copy, if it is prepared. Only for the transaction that prepared it: behind a pooler, the next one may run in
    /// another session of the server.
    prepared: Option<(Arc<CopyPlan<SqlType>>, tokio_postgres::Statement)>,
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

type Request<'s> = BoxFuture<'s, Result<Answer, tokio_postgres::Error>>;

/// Sends all requests before it waits for the first answer, so that they need one round trip.
async fn pipeline(requests: Vec<Request<'_>>) -> Vec<Result<Answer, tokio_postgres::Error>> {
    let mut started: Vec<Pin<Box<MaybeDone<Request<'_>>>>> = Vec::with_capacity(requests.len());
    for request in requests {
        let mut request = Box::pin(maybe_done(request));
        // The first poll sends the request, or queues it behind those that are not sent yet.
        let _ = request.as_mut().now_or_never();
        started.push(request);
    }
    let mut answers = Vec::with_capacity(started.len());
    for mut request in started {
        request.as_mut().await;
        answers.extend(request.as_mut().take_output());
    }
    answers
}

async fn answer(client: &Client, statement: &Statement) -> Result<Answer, tokio_postgres::Error> {
    // The extended protocol accepts a single statement only, so that nothing can follow that of a user.
    match statement.parameters.is_empty() && !statement.is_of_user {
        true => ask_plainly(client, &statement.text).await,
        false => ask_with(client, statement).await,
    }
}

async fn ask_plainly(client: &Client, text: &str) -> Result<Answer, tokio_postgres::Error> {
    let mut answer = Answer::default();
    for message in client.simple_query(text).await? {
        match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|index| Ok(row.try_get(index)?.map(str::to_owned)));
                answer.rows.push(cells.collect::<Result<Row, _>>()?);
            }
            SimpleQueryMessage::CommandComplete(count) => answer.changed = count,
            _ => {}
        }
    }
    Ok(answer)
}

async fn ask_with(client: &Client, statement: &Statement) -> Result<Answer, tokio_postgres::Error> {
    let parameters = statement.parameters.iter().map(|value| (Text(value.as_deref()), Type::UNKNOWN));
    let mut found = Box::pin(client.query_typed_raw(&statement.text, parameters).await?);
    let mut rows = Vec::new();
    while let Some(row) = found.try_next().await? {
        if statement.is_of_user {
            continue;
        }
        rows.push((0..row.len()).map(|index| text_of(&row, index)).collect::<Result<Row, _>>()?);
    }
    Ok(Answer { rows, changed: found.rows_affected().unwrap_or(0) })
}

/// Ends a copy; returns the number of rows that the server stored.
async fn finish(mut rows: Pin<Box<CopyInSink<Bytes>>>) -> Result<Answer, tokio_postgres::Error> {
    rows.send(Bytes::from_static(&[0xff, 0xff])).await?;
    Ok(Answer { rows: Vec::new(), changed: rows.as_mut().finish().await? })
}

fn copy_command(target: &CopyTarget) -> String {
    let names = target.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", target.table)
}

impl Session {
    /// Runs statements in one round trip. Outside of a transaction they get one of their own, which has the settings. `prepare`: the
    /// command of a copy.
    async fn send_all(
        &mut self,
        statements: &[Statement],
        prepare: Option<&str>,
    ) -> Result<(Vec<Answer>, Option<tokio_postgres::Statement>)> {
        let (begin, commit) = (PostgresDialect.begin(), PostgresDialect.commit());
        let begins = statements.first() == Some(&begin);
        let ends = statements.last().is_some_and(|last| *last == commit || *last == PostgresDialect.rollback());
        let is_alone = !self.in_transaction && !begins && !ends;
        if ends || is_alone {
            self.prepared = None;
            // Rows that a copy did not store must not be committed.
            self.end_copy().await?;
        }
        self.is_sound = false;
        // The errors of a copy in progress come before those of the statements.
        let (stored, sent) = match self.copy.take() {
            Some(copy) => (Some(copy.rows), copy.count),
            None => (None, 0),
        };
        let has_copy = stored.is_some();
        let client = &self.client;
        let mut prepared = None;
        let mut requests: Vec<Request<'_>> = Vec::new();
        requests.extend(stored.map(|rows| finish(rows).boxed()));
        if is_alone {
            requests.push(ask_plainly(client, &begin.text).boxed());
        }
        requests.extend(statements.iter().map(|statement| answer(client, statement).boxed()));
        if is_alone {
            requests.push(ask_plainly(client, &commit.text).boxed());
        }
        if let Some(command) = prepare {
            let prepared = &mut prepared;
            requests.push(
                async move { client.prepare(command).await.map(|made| *prepared = Some(made)).map(|()| Answer::default()) }
                    .boxed(),
            );
        }
        let mut answers = pipeline(requests).await.into_iter();
        if has_copy {
            match answers.next() {
                Some(Ok(stored)) if stored.changed == sent => {}
                Some(Err(error)) => return Err(self.failed(error).await),
                stored => {
                    self.rest();
                    return Err(incomplete(sent, stored.and_then(Result::ok).map_or(0, |stored| stored.changed)));
                }
            }
        }
        let mut kept = Vec::with_capacity(statements.len());
        let mut failure = None;
        for (number, answer) in answers.enumerate() {
            let is_first = number == 0;
            match answer {
                Ok(answer) => {
                    if begins && is_first {
                        self.in_transaction = true;
                    }
                    if ends && number + 1 == statements.len() {
                        self.in_transaction = false;
                    }
                    kept.push(answer);
                }
                Err(error) if failure.is_none() => failure = Some((number, error)),
                // They follow from the first one.
                Err(_) => {}
            }
        }
        if let Some((number, error)) = failure {
            let statement = statements.get(number.saturating_sub(usize::from(is_alone)));
            let text = statement.map(|statement| statement.text.as_str()).or(prepare).unwrap_or_default();
            return Err(errors::with_grant(self.failed(error).await, text, &self.identity));
        }
        if is_alone {
            kept.remove(0);
        }
        kept.truncate(statements.len());
        self.rest();
        Ok((kept, prepared))
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
        let command = copy_command(&plan.target);
        tracing::debug!(sql = command, "Copy");
        let prepared = self.prepared.take().filter(|(of, _)| Arc::ptr_eq(of, &plan));
        let begun = match &prepared {
            Some((_, statement)) => self.client.copy_in(statement).await,
            None => self.client.copy_in(&command).await,
        };
        match begun {
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
        let Some(copy) = self.copy.take() else { return Ok(()) };
        self.is_sound = false;
        match finish(copy.rows).await {
            Ok(stored) => {
                self.rest();
                if stored.changed == copy.count { Ok(()) } else { Err(incomplete(copy.count, stored.changed)) }
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

/// The error of a copy whose rows the server did not all store.
fn incomplete(sent: u64, stored: u64) -> Error {
    Error::new(Kind::Target, "The database server did not store all rows of a copy")
        .with_field("sent", sent)
        .with_field("stored", stored)
}

#[async_trait]
impl Connection for Session {
    async fn ask(&mut self, statement: &Statement) -> Result<Answer> {
        let answers = self.run_all(std::slice::from_ref(statement)).await?;
        answers.into_iter().next().ok_or_else(|| Error::new(Kind::Bug, "A statement has no answer"))
    }

    async fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        for statement in statements {
            tracing::debug!(sql = statement.shown(), "Statement");
        }
        match statements {
            [] => self.end_copy().await.map(|()| Vec::new()),
            _ => Ok(self.send_all(statements, None).await?.0),
        }
    }

    async fn prepare_copy(&mut self, statements: &[Statement], target: &CopyTarget) -> Result<()> {
        if !self.in_transaction {
            return self.run_all(statements).await.map(drop);
        }
        for statement in statements {
            tracing::debug!(sql = statement.shown(), "Statement");
        }
        let (_, prepared) = self.send_all(statements, Some(&copy_command(target))).await?;
        self.prepared = prepared.map(|prepared| (self.plan_for(target), prepared));
        Ok(())
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
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.client.simple_query(""));
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
