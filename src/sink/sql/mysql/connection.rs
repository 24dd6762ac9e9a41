//! Sessions with MySQL and MariaDB, with the driver `mysql_async`: statements, and rows by `LOAD DATA LOCAL INFILE` or, where that is
//! disabled, by `INSERT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Params, QueryResult, SslOpts, Value};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use url::Url;

use super::dialect::MysqlDialect;
use super::encode::{Encoder, Form, Format};
use super::errors;
use super::names::literal;
use super::options::Options;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::sql::connection::{Answer, Connection, CopyPlan, CopyTarget, Server, TlsMode};
use crate::sink::sql::dialect::{Dialect, Row, Statement};

/// The time to open a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A session that was idle for longer is tested before use.
const REST: Duration = Duration::from_millis(100);
/// The time for an idle session to answer a test.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of rows that are sent in one message.
const CHUNK: usize = 256 << 10;
/// Name of a result between those of two statements that are sent at once.
const NEXT: &str = "daplake_next";
/// Bytes of an `INSERT`, if the server accepts as many.
const INSERT_BYTES: usize = 1 << 20;

/// All settings that the statements rely on, whatever the server's are. Values keep their meaning, and fractions of a second are never
/// rounded up. Results are complete, and no statement is ended for taking long: a session may wait for the service or for a lock. It
/// reads what other sessions have committed. Messages are in English, because columns and rows are read from them.
const SETTINGS: &str = "SET SESSION sql_mode = CONCAT(\
    'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO', \
    IF(VERSION() LIKE '%MariaDB%', '', ',TIME_TRUNCATE_FRACTIONAL')), \
    time_zone = '+00:00', lc_messages = 'en_US', autocommit = 1, completion_type = 0, \
    sql_safe_updates = 0, sql_big_selects = 1, sql_auto_is_null = 0, sql_select_limit = 18446744073709551615, \
    foreign_key_checks = 1, unique_checks = 1, default_storage_engine = InnoDB, default_tmp_storage_engine = InnoDB, \
    wait_timeout = 28800, net_read_timeout = 600, net_write_timeout = 600, innodb_lock_wait_timeout = 120, lock_wait_timeout = 86400 \
    /*M!100101 , max_statement_time = 0, max_error_count = 64 */ /*!80000 , max_execution_time = 0 */ \
    /*M!100300 , idle_transaction_timeout = 0, idle_write_transaction_timeout = 0 */; \
    SET NAMES utf8mb4; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// See [`Server`].
#[derive(Debug)]
pub(in crate::sink::sql) struct MysqlServer {
    options: Options,
    dialect: MysqlDialect,
    /// The server refused the bulk path.
    no_bulk: Arc<AtomicBool>,
}

impl MysqlServer {
    /// From a connection string. Connects to nothing.
    pub(in crate::sink::sql) fn from_url(url: &Url) -> Result<Self> {
        Ok(Self { options: Options::from_url(url)?, dialect: MysqlDialect, no_bulk: Arc::default() })
    }

    /// Simulates a server with the bulk path disabled, or not.
    #[cfg(test)]
    pub(super) fn refuse_bulk(&self, refused: bool) {
        self.no_bulk.store(refused, Ordering::Relaxed);
    }
}

#[async_trait]
impl Server for MysqlServer {
    fn dialect(&self) -> &dyn Dialect {
        &self.dialect
    }

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let opened = async {
            let mut conn = open(&self.options).await?;
            conn.query_drop(SETTINGS).await.map_err(errors::from_driver)?;
            Ok(conn)
        };
        let opened: Result<Result<Conn>> =
            tokio::time::timeout(CONNECT_TIMEOUT, opened).await.context(Kind::Target, "The database server does not answer");
        let conn = opened?.hint("check host, port, user, password and ssl of the connection string")?;
        Ok(Box::new(Session {
            conn,
            is_open: false,
            no_bulk: Arc::clone(&self.no_bulk),
            plan: None,
            packet_bytes: None,
            used: Instant::now(),
        }))
    }
}

async fn open(options: &Options) -> Result<Conn> {
    if options.socket.is_some() {
        // A Unix socket needs no TLS.
        return open_once(options, None).await.map_err(errors::from_driver);
    }
    match options.tls {
        TlsMode::Disable => open_once(options, None).await.map_err(errors::from_driver),
        TlsMode::Allow => match open_once(options, None).await {
            // The server may insist on TLS, for all users or this one.
            Err(mysql_async::Error::Server(error)) if matches!(error.code, 1045 | 3159 | 4165) => {
                let secure = open_once(options, Some(accept_any())).await;
                secure.map_err(|_| errors::server(error.code, &error.state, &error.message))
            }
            other => other.map_err(errors::from_driver),
        },
        TlsMode::Prefer => match open_once(options, Some(accept_any())).await {
            // The server may have no TLS, or fail at it.
            Err(mysql_async::Error::Driver(_) | mysql_async::Error::Io(_)) => {
                open_once(options, None).await.map_err(errors::from_driver)
            }
            other => other.map_err(errors::from_driver),
        },
        TlsMode::Require => open_once(options, Some(accept_any())).await.map_err(errors::from_driver),
        TlsMode::VerifyFull => open_once(options, Some(trusted(options)?)).await.map_err(errors::from_driver),
        TlsMode::VerifyCa => {
            let trusted = trusted(options)?;
            match open_once(options, Some(trusted.clone())).await {
                // Any name will do, if a trusted authority signed the certificate.
                Err(error) if let Some(name) = presented_name(&error) => {
                    let renamed = trusted.with_danger_tls_hostname_override(Some(name));
                    open_once(options, Some(renamed)).await.map_err(errors::from_driver)
                }
                other => other.map_err(errors::from_driver),
            }
        }
    }
}

/// Accepts every certificate, for the modes below `verify-ca`.
fn accept_any() -> SslOpts {
    SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
}

/// Trusts the authorities of the file, or else those of the system.
fn trusted(options: &Options) -> Result<SslOpts> {
    use rustls::pki_types::pem::PemObject;
    let unreadable = "The file of trusted certificates cannot be read";
    let mut known = rustls::RootCertStore::empty();
    let mut roots = Vec::new();
    let mut add = |certificate: CertificateDer<'static>| {
        let is_known = known.add(certificate.clone());
        roots.push(certificate.as_ref().to_vec().into());
        is_known
    };
    match &options.root_certificates {
        Some(file) => {
            for certificate in CertificateDer::pem_file_iter(file).context(Kind::Usage, unreadable)? {
                add(certificate.context(Kind::Usage, unreadable)?).context(Kind::Usage, unreadable)?;
            }
        }
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                if add(certificate).is_err() {
                    tracing::debug!("Skipping an unreadable certificate of the system");
                }
            }
        }
    }
    if known.is_empty() {
        return Err(Error::new(Kind::Usage, "No trusted certificates were found")
            .hint("name a file of trusted certificates with sslrootcert=FILE"));
    }
    Ok(SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true))
}

/// A name of a certificate that was refused only for its name.
fn presented_name(error: &mysql_async::Error) -> Option<String> {
    let mysql_async::Error::Io(mysql_async::IoError::Io(error)) = error else { return None };
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForNameContext { presented, .. }) = error else {
        return None;
    };
    // Written as `DnsName("host")` or `IpAddress(127.0.0.1)`.
    let name = presented.first()?.split_once('(')?.1.trim_end_matches(')').trim_matches('"');
    Some(name.replace('*', "any"))
}

async fn open_once(options: &Options, tls: Option<SslOpts>) -> Result<Conn, mysql_async::Error> {
    // The driver uses the process's default, and there is more than one provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = OptsBuilder::default()
        .ip_or_hostname(&options.host)
        .tcp_port(options.port)
        .user(Some(&options.user))
        .pass(options.password.as_ref().map(|password| password.reveal()))
        .db_name(Some(&options.database))
        .prefer_socket(false)
        .socket(options.socket.as_ref())
        .tcp_keepalive(Some(Duration::from_secs(60)))
        .stmt_cache_size(16)
        .ssl_opts(tls);
    Conn::new(Opts::from(builder)).await
}

/// A session. The driver closes it after an error that is not the server's.
struct Session {
    conn: Conn,
    /// A transaction is open.
    is_open: bool,
    no_bulk: Arc<AtomicBool>,
    /// The copy before, whose types need not be read again.
    plan: Option<Arc<CopyPlan<Format>>>,
    /// See [`Session::packet_bytes`].
    packet_bytes: Option<usize>,
    used: Instant,
}

impl Session {
    /// Runs a statement of one part or several.
    async fn run(&mut self, statement: &Statement) -> Result<Answer> {
        // A prepared statement is a single one, so that nothing can follow that of a user.
        let done = match statement.parameters.is_empty() && !statement.is_of_user {
            true => gather(self.conn.query_iter(&statement.text).await).await,
            false => {
                let values = statement.parameters.iter().map(|value| match value {
                    Some(text) => Value::Bytes(text.as_bytes().to_vec()),
                    None => Value::NULL,
                });
                let values = Params::Positional(values.collect());
                gather(self.conn.exec_iter(&statement.text, values).await).await
            }
        };
        self.note_transaction();
        Ok(done.map_err(errors::from_driver)?.pop().unwrap_or_default())
    }

    fn last_status(&self) -> StatusFlags {
        self.conn.last_ok_packet().map_or_else(StatusFlags::empty, |ok| ok.status_flags())
    }

    fn note_transaction(&mut self) {
        self.used = Instant::now();
        if self.conn.last_ok_packet().is_some() {
            self.is_open = self.last_status().contains(StatusFlags::SERVER_STATUS_IN_TRANS);
        }
    }

    /// Sends the rows as a file that the server requests.
    async fn load(&mut self, encoder: &Arc<Encoder>) -> Result<u64> {
        let command = load_command(encoder);
        let sent = Arc::new(Mutex::new((0_u64, None)));
        let (rows, progress) = (Arc::clone(encoder), Arc::clone(&sent));
        // A message must not be larger than the server accepts, even if a row is.
        let piece = CHUNK.min(self.packet_bytes().await?);
        self.conn.set_infile_handler(async move {
            let mut next = 0;
            let chunks = std::iter::from_fn(move || {
                let mut chunk = Vec::with_capacity(CHUNK + (CHUNK >> 3));
                while next < rows.rows() && chunk.len() < CHUNK {
                    if let Err(error) = rows.row(next, Form::Fields, &mut chunk) {
                        // The file ends here for the server, so that the session can still roll back.
                        progress.lock().1 = Some(error);
                        return None;
                    }
                    next += 1;
                }
                progress.lock().0 += chunk.len() as u64;
                (!chunk.is_empty()).then(|| Bytes::from(chunk))
            });
            let pieces = chunks.flat_map(move |mut chunk| {
                std::iter::from_fn(move || (!chunk.is_empty()).then(|| Ok(chunk.split_to(piece.min(chunk.len())))))
            });
            Ok(stream::iter(pieces).boxed())
        });
        let done = self.run(&Statement::new(command)).await;
        let (bytes, failed) = std::mem::take(&mut *sent.lock());
        if let Some(error) = failed {
            return Err(error);
        }
        done?;
        let loaded = counts(&self.conn.info()).and_then(|[records, _, skipped, _]| (skipped == 0).then_some(records));
        if self.conn.get_warnings() > 0 || loaded != Some(encoder.rows() as u64) {
            return Err(self.complaint(encoder).await?);
        }
        Ok(bytes)
    }

    /// The server's first warning about the rows that were just loaded, as an error.
    async fn complaint(&mut self, encoder: &Encoder) -> Result<Error> {
        let rows = self.run(&Statement::new("SHOW WARNINGS LIMIT 1")).await?.rows;
        let Some([_, Some(code), Some(message)]) = rows.first().map(Vec::as_slice) else {
            return Ok(Error::new(Kind::Target, "The database server did not store all rows of a bulk load")
                .with_field("relation", &encoder.target().table)
                .hint("the table was not changed; run the command again"));
        };
        let error = errors::server(code.parse().unwrap_or_default(), "", message);
        Ok(match errors::row_of(message).filter(|row| (1..=encoder.rows()).contains(row)) {
            Some(row) => error.with_field("key", encoder.key(row - 1)),
            None => error,
        })
    }

    /// The bytes that the server accepts in one message.
    async fn packet_bytes(&mut self) -> Result<usize> {
        if let Some(bytes) = self.packet_bytes {
            return Ok(bytes);
        }
        let rows = self.run(&Statement::new("SELECT @@max_allowed_packet")).await?.rows;
        let bytes = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(INSERT_BYTES);
        // The server adds some bytes of its own.
        Ok(*self.packet_bytes.insert(usize::max(bytes, 1 << 10) - 64))
    }

    /// Sends the rows as literals.
    async fn insert(&mut self, encoder: &Encoder) -> Result<u64> {
        let packet = self.packet_bytes().await?;
        let limit = INSERT_BYTES.min(packet / 2);
        let names: Vec<&str> = encoder.fields().map(|(name, _)| name).collect();
        let begin = format!("INSERT INTO {} ({}) VALUES ", encoder.target().table, names.join(", ")).into_bytes();
        let (mut text, mut values, mut first, mut sent) = (begin.clone(), Vec::new(), 0, 0);
        for row in 0..=encoder.rows() {
            values.clear();
            let is_end = row == encoder.rows();
            if !is_end {
                encoder.row(row, Form::Literals, &mut values)?;
            }
            if row > first && (is_end || text.len() + values.len() >= limit) {
                sent += text.len() as u64;
                if let Err(error) = self.conn.query_drop(text.as_slice()).await {
                    return Err(refused(error, encoder, first));
                }
                first = row;
                text.clone_from(&begin);
            }
            if text.len() + values.len() >= packet {
                return Err(Error::new(Kind::Data, "A row is larger than the database server accepts in one statement")
                    .with_field("key", encoder.key(row))
                    .with_field("bytes", values.len())
                    .with_field("max_allowed_packet", packet)
                    .hint("raise max_allowed_packet on the server, or set local_infile=ON there"));
            }
            if row > first {
                text.push(b',');
            }
            text.extend_from_slice(&values);
        }
        Ok(sent)
    }
}

/// The error of an `INSERT` whose first row is `first`. It names the key if the server names the row, and never the server's message, which
/// may quote the statement.
fn refused(error: mysql_async::Error, encoder: &Encoder, first: usize) -> Error {
    let mysql_async::Error::Server(error) = error else { return errors::from_driver(error) };
    let refused = errors::server(error.code, &error.state, &error.message);
    match refused.kind() {
        Kind::Data => match errors::row_of(&error.message).map(|row| first + row.saturating_sub(1)) {
            Some(row) if row < encoder.rows() => refused.with_field("key", encoder.key(row)),
            _ => refused,
        },
        _ => errors::server(error.code, &error.state, "a statement with rows was refused"),
    }
}

fn load_command(encoder: &Encoder) -> String {
    let mut fields = Vec::new();
    let mut sets = Vec::new();
    for (number, (name, is_hex)) in encoder.fields().enumerate() {
        if is_hex {
            fields.push(format!("@v{number}"));
            sets.push(format!("{name} = UNHEX(@v{number})"));
        } else {
            fields.push(name.to_owned());
        }
    }
    let set = if sets.is_empty() { String::new() } else { format!(" SET {}", sets.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE 'daplake' INTO TABLE {} CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' \
         LINES TERMINATED BY '\\n' ({}){set}",
        encoder.target().table,
        fields.join(", ")
    )
}

/// The counts that the server reports after a load: records, deleted, skipped, warnings.
fn counts(info: &str) -> Option<[u64; 4]> {
    let numbers: Vec<u64> = info.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().ok()
}

/// The text of a statement with its parameters as literals, for sessions whose literals have escapes. `None` if the text has a question mark
/// that is no placeholder, or the statement is the user's.
fn with_literals(statement: &Statement) -> Option<String> {
    if statement.is_of_user {
        return None;
    }
    if statement.parameters.is_empty() {
        return Some(statement.text.clone());
    }
    if statement.text.matches('?').count() != statement.parameters.len() {
        return None;
    }
    let mut parts = statement.text.split('?');
    let mut text = parts.next()?.to_owned();
    for (value, part) in statement.parameters.iter().zip(parts) {
        text.push_str(&value.as_ref().map_or_else(|| "NULL".to_owned(), |value| literal(value)));
        text.push_str(part);
    }
    Some(text)
}

/// The rows of all results as text, and the counts of changed rows. Results named [`NEXT`] divide the answers.
async fn gather<P: mysql_async::prelude::Protocol>(
    result: Result<QueryResult<'_, '_, P>, mysql_async::Error>,
) -> Result<Vec<Answer>, mysql_async::Error> {
    let mut result = result?;
    let (mut answers, mut answer) = (Vec::new(), Answer::default());
    loop {
        let is_next = matches!(result.columns_ref(), [column] if column.name_str() == NEXT);
        if result.columns_ref().is_empty() {
            answer.changed = result.affected_rows();
        }
        let found: Vec<mysql_async::Row> = result.collect().await?;
        if is_next {
            answers.push(std::mem::take(&mut answer));
        } else {
            answer.rows.extend(found.into_iter().map(|row| row.unwrap().into_iter().map(text).collect::<Row>()));
        }
        if result.is_empty() {
            break;
        }
    }
    // The error of a later part comes with the read behind it.
    let _: Vec<mysql_async::Row> = result.collect().await?;
    answers.push(answer);
    Ok(answers)
}

fn text(value: Value) -> Option<String> {
    Some(match value {
        Value::NULL => return None,
        Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        other => other.as_sql(true).trim_matches('\'').to_owned(),
    })
}

#[async_trait]
impl Connection for Session {
    async fn ask(&mut self, statement: &Statement) -> Result<Answer> {
        tracing::debug!(sql = statement.shown(), "Statement");
        self.run(statement).await
    }

    /// As one text, if all parameters can be written into it. The server stops at the first error.
    async fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        let texts = match self.last_status().contains(StatusFlags::SERVER_STATUS_NO_BACKSLASH_ESCAPES) {
            false => statements.iter().map(with_literals).collect::<Option<Vec<String>>>(),
            // Set by statements of the user; literals would have another meaning.
            true => None,
        };
        let Some(texts) = texts.filter(|texts| texts.len() > 1) else {
            let mut answers = Vec::with_capacity(statements.len());
            for statement in statements {
                answers.push(self.ask(statement).await?);
            }
            return Ok(answers);
        };
        for statement in statements {
            tracing::debug!(sql = statement.shown(), "Statement");
        }
        let text = texts.join(&format!("; SELECT 1 AS {NEXT}; "));
        let answers = gather(self.conn.query_iter(text).await).await;
        self.note_transaction();
        let answers = answers.map_err(errors::from_driver)?;
        match answers.len() == statements.len() {
            true => Ok(answers),
            false => Err(Error::new(Kind::Bug, "The database server returned another number of results than statements")),
        }
    }

    /// Returns when the server has confirmed that it stored the rows unchanged.
    async fn copy_in(&mut self, target: &CopyTarget, batch: &RecordBatch) -> Result<u64> {
        let plan = match &self.plan {
            Some(plan) if plan.target == *target => Arc::clone(plan),
            _ => Arc::clone(self.plan.insert(Arc::new(CopyPlan::new(target, Format::of)))),
        };
        let encoder = Arc::new(Encoder::new(&plan, batch)?);
        if !self.no_bulk.load(Ordering::Relaxed) {
            match self.load(&encoder).await {
                Err(error) if error.get("code").is_some_and(|code| errors::BULK_DISABLED.contains(&code)) => {
                    if !self.no_bulk.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "The database server has LOAD DATA LOCAL INFILE disabled; rows are sent with INSERT, which is slower (set local_infile=ON on the server)"
                        );
                    }
                }
                other => return other,
            }
        }
        self.insert(&encoder).await
    }

    fn is_idle(&self) -> bool {
        !self.conn.is_disconnected() && !self.is_open
    }

    async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < REST {
            return !self.conn.is_disconnected();
        }
        matches!(tokio::time::timeout(PING_TIMEOUT, self.conn.ping()).await, Ok(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_literals_of_a_text_without_other_question_marks() {
        let statement = Statement::new("UPDATE t SET a = ? WHERE b = ?").bind("it's \\ 1?").bind("x");
        assert_eq!(with_literals(&statement).unwrap(), r"UPDATE t SET a = 'it''s \\ 1?' WHERE b = 'x'");
        assert_eq!(with_literals(&Statement::new("COMMENT 'why?'")).unwrap(), "COMMENT 'why?'");
        assert_eq!(with_literals(&Statement::new("SELECT `a?` FROM t WHERE b = ?").bind("x")), None);
        assert_eq!(with_literals(&Statement::of_user("SELECT 1")), None);
    }

    #[test]
    fn counts_of_the_server_are_read() {
        assert_eq!(counts("Records: 8192  Deleted: 0  Skipped: 1  Warnings: 2"), Some([8192, 0, 1, 2]));
        assert_eq!(counts(""), None);
    }
}
