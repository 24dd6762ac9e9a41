//! A session by the protocol of SQL Server, through `tiberius`: batches, statements with parameters, bulk loads.
//!
//! A session that saw any error, or was left in the middle of something, is never used again: what the server makes of the
//! transaction then is its affair, and it undoes it when the connection closes. The driver tells the server's sentences, which
//! may quote values, to whoever listens to its events; here nobody does.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel, ToSql, TokenRow};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use url::Url;

use super::dialect::{MssqlDialect, SESSION, TRANSACTIONS_OPEN};
use super::encode::{self, Encoder};
use super::options::Options;
use super::tls::{self, Transport};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::sql::connection::{Connection, CopyInto, Server, unreachable};
use crate::sink::sql::connection_string::TlsMode;
use crate::sink::sql::dialect::Dialect;
use crate::sink::sql::statement::{Row, Statement};
use crate::sink::sql::tls::{SystemRoots, config as tls_config};

/// For all of the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Redirections that are followed, as Azure's gateway gives them.
const MAX_HOPS: usize = 3;
/// Bytes of a packet: the largest that servers take with TLS, but for a little.
const PACKET_BYTES: u32 = 16_000;

/// See [`Server`].
#[derive(Debug)]
pub(in crate::sink::sql) struct MssqlServer {
    options: Options,
    dialect: MssqlDialect,
}

impl MssqlServer {
    /// From a connection string. Connects to nothing.
    pub(in crate::sink::sql) fn from_url(url: &Url) -> Result<Self> {
        Ok(Self { options: Options::from_url(url)?, dialect: MssqlDialect })
    }
}

#[async_trait]
impl Server for MssqlServer {
    fn dialect(&self) -> &dyn Dialect {
        &self.dialect
    }

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, open(&self.options).with_subscriber(NoSubscriber::default())).await;
        let client = opened.context(Kind::Target, "The database server does not answer")?;
        let mut session = Session { client: client.hint(CONNECT_HINT)?, broken: false };
        session.execute(&Statement::new(SESSION)).await?;
        Ok(Box::new(session))
    }
}

const CONNECT_HINT: &str = "check host, port, user, password and ssl of the connection string";

/// On the heap: the client is large, and so would be each future that holds it.
type Wire = Box<Client<Compat<Transport>>>;

async fn open(options: &Options) -> Result<Wire> {
    match options.tls {
        // The server may insist on TLS, which is what `allow` asks for.
        TlsMode::Disable | TlsMode::Allow => open_with(options, EncryptionLevel::NotSupported).await,
        TlsMode::Prefer => match open_with(options, EncryptionLevel::On).await {
            // The server may have no TLS, or speak it badly; who it let in and refused then is none of these.
            Err(error) if error.get("number").is_none() => {
                open_with(options, EncryptionLevel::NotSupported).await.map_err(|_| error)
            }
            other => other,
        },
        TlsMode::Require => open_with(options, EncryptionLevel::On).await,
        // The driver is told of no TLS, as it is established before it begins.
        TlsMode::VerifyCa | TlsMode::VerifyFull => open_with(options, EncryptionLevel::NotSupported).await,
    }
}

async fn open_with(options: &Options, encryption: EncryptionLevel) -> Result<Wire> {
    let (mut host, mut port) = (options.host.clone(), options.port);
    for _ in 0..=MAX_HOPS {
        let lost = "The database server cannot be reached";
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).context(Kind::Target, lost)?;
        let stream = match options.tls.verifies() {
            true => verified(options, stream, &host).await?,
            false => Transport::Plain(stream),
        };
        let config = config(options, encryption, &host, port);
        match Box::pin(Client::connect(config, stream.compat_write())).await {
            Ok(client) => return Ok(Box::new(client)),
            Err(tiberius::error::Error::Routing { host: next, port: next_port }) => {
                tracing::debug!(host = next, port = next_port, "The server sends elsewhere");
                (host, port) = (next, next_port);
            }
            Err(error) => return Err(failure(error)),
        }
    }
    Err(Error::new(Kind::Target, "The database server sends from one address to the next").with_field("host", host))
}

/// TLS with a server whose certificate is trusted.
async fn verified(options: &Options, stream: TcpStream, host: &str) -> Result<Transport> {
    // Newer versions have the handshake before the protocol's first message.
    let config = tls_config(options.tls_settings(), SystemRoots::Added, &[&rustls::version::TLS12])?;
    let name = options.certificate_name.as_deref().unwrap_or(host);
    tls::connect(stream, config, name).await.map_err(|failure| match failure {
        tls::Failure::Unsupported => Error::new(Kind::Target, "The database server does not offer TLS")
            .hint("set up TLS on the server, or connect without it with ssl=disable"),
        tls::Failure::Refused(error) => untrusted(error.to_string()),
        tls::Failure::Lost(error) => lost(error.to_string()),
    })
}

fn config(options: &Options, encryption: EncryptionLevel, host: &str, port: u16) -> Config {
    let mut config = Config::new();
    config.host(host);
    config.port(port);
    config.application_name("daplake");
    config.packet_size(PACKET_BYTES);
    config.encryption(encryption);
    if let Some(database) = &options.database {
        config.database(database);
    }
    let password = options.password.as_ref().map_or("", |password| password.reveal());
    config.authentication(AuthMethod::sql_server(&options.user, password));
    // Where certificates are verified, that is done before the driver begins.
    config.trust_cert();
    config
}

/// A value of a statement, with its type.
struct Parameter<'v>(ColumnData<'v>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self) -> ColumnData<'_> {
        self.0.clone()
    }
}

/// One row by a statement of its own. Nulls are left out.
async fn insert(client: &mut Wire, table: &str, names: &[&str], row: TokenRow<'_>) -> Result<()> {
    let given: Vec<(&str, Parameter<'_>)> = names
        .iter()
        .zip(row)
        .filter(|(_, value)| !encode::is_null(value))
        .map(|(name, value)| (*name, Parameter(value)))
        .collect();
    let columns: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
    let places: Vec<String> = (1..=given.len()).map(|number| format!("@P{number}")).collect();
    let text = format!("INSERT INTO {table} ({}) VALUES ({})", columns.join(", "), places.join(", "));
    let values: Vec<&dyn ToSql> = given.iter().map(|(_, value)| value as &dyn ToSql).collect();
    client.execute(text, &values).await.map_err(failure)?;
    Ok(())
}

struct Session {
    client: Wire,
    /// Something went wrong, or was begun and not ended.
    broken: bool,
}

fn unusable() -> Error {
    Error::new(Kind::Target, "The database session cannot be used any more")
}

/// The parameters as the driver takes them. A null is a text without value, never one without type.
fn parameters(statement: &Statement) -> Vec<&dyn ToSql> {
    statement.parameters.iter().map(|value| value as &dyn ToSql).collect()
}

impl Session {
    async fn ask(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(unusable());
        }
        let answer = async {
            let results = match statement.parameters.is_empty() {
                true => self.client.simple_query(statement.text.as_str()).await?.into_results().await?,
                false => {
                    let parameters = parameters(statement);
                    self.client.query(statement.text.as_str(), &parameters).await?.into_results().await?
                }
            };
            Ok(results)
        };
        let answer: Result<Vec<Vec<tiberius::Row>>, tiberius::error::Error> =
            answer.with_subscriber(NoSubscriber::default()).await;
        let rows = answer.map_err(failure)?.into_iter().flatten().map(row).collect::<Option<Vec<Row>>>();
        let rows = rows.ok_or_else(|| Error::new(Kind::Bug, "The database answers with a type that was not asked for"))?;
        self.broken = false;
        Ok(rows)
    }
}

fn row(row: tiberius::Row) -> Option<Row> {
    row.into_iter()
        .map(|cell| {
            Some(match cell {
                ColumnData::String(text) => text.map(|text| text.into_owned()),
                ColumnData::Bit(bit) => bit.map(|bit| u8::from(bit).to_string()),
                ColumnData::U8(number) => number.map(|number| number.to_string()),
                ColumnData::I16(number) => number.map(|number| number.to_string()),
                ColumnData::I32(number) => number.map(|number| number.to_string()),
                ColumnData::I64(number) => number.map(|number| number.to_string()),
                _ => return None,
            })
        })
        .collect()
}

#[async_trait]
impl Connection for Session {
    /// The number that the statement selects last, if it selects any: the driver keeps no other count of a batch.
    async fn execute(&mut self, statement: &Statement) -> Result<u64> {
        tracing::debug!(sql = statement.text, "Statement");
        let rows = self.ask(statement).await?;
        Ok(rows.last().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0))
    }

    async fn rows(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        tracing::debug!(sql = statement.text, "Query");
        self.ask(statement).await
    }

    /// Rows leave as packets fill up; those with a text that the driver's bulk path does not take follow one by one. Once the last has left it waits for the server's answer.
    async fn copy_in(&mut self, into: &CopyInto, batch: &RecordBatch) -> Result<u64> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(unusable());
        }
        let encoder = Encoder::new(into, batch)?;
        let names: Vec<&str> = into.columns.iter().map(|column| column.name.as_str()).collect();
        let client = &mut self.client;
        let copied = async {
            let mut request = client.bulk_insert_columns(&into.table, &names).await.map_err(failure)?;
            let (mut sent, mut long) = (0, Vec::new());
            for row in 0..batch.num_rows() {
                if encoder.is_long(row) {
                    long.push(row);
                    continue;
                }
                let row = encoder.row(row, &mut sent)?;
                request.send(row).await.map_err(failure)?;
            }
            let expected = (batch.num_rows() - long.len()) as u64;
            let taken = request.finalize().await.map_err(failure)?.total();
            if taken != expected {
                let error = Error::new(Kind::Target, "The database server has not taken all rows of a bulk load");
                return Err(error
                    .with_field("sent", expected)
                    .with_field("taken", taken)
                    .hint("nothing of the table was changed; run it again"));
            }
            for row in long {
                let row = encoder.row(row, &mut sent)?;
                insert(client, &into.table, &names, row).await?;
            }
            Ok(sent)
        };
        let copied: Result<u64> = copied.with_subscriber(NoSubscriber::default()).await;
        let sent = copied?;
        self.broken = false;
        Ok(sent)
    }

    fn is_idle(&self) -> bool {
        !self.broken
    }

    /// The driver hides the stream, so the server is asked.
    async fn is_alive(&mut self) -> bool {
        matches!(self.execute(&Statement::new(TRANSACTIONS_OPEN)).await, Ok(0))
    }
}

fn lost(cause: String) -> Error {
    Error::new(Kind::Target, "The connection to the database was lost")
        .hint("nothing of the table was changed; run it again")
        .caused_by(cause)
}

fn untrusted(cause: String) -> Error {
    Error::new(Kind::Target, "The database server's TLS could not be trusted or agreed on")
        .hint(
            "name the authority with sslrootcert=..., the certificate's name with hostNameInCertificate=..., or choose \
             ssl=require to trust any certificate",
        )
        .caused_by(cause)
}

/// What the server says, without values: its sentences about data quote them.
fn failure(error: tiberius::error::Error) -> Error {
    match error {
        tiberius::error::Error::Server(error) => server_error(error.code(), error.message()),
        tiberius::error::Error::Io { message, .. } => lost(message),
        tiberius::error::Error::Tls(message) => {
            // What follows is advice for programmers.
            untrusted(message.split(" To connect anyway").next().unwrap_or_default().to_owned())
        }
        tiberius::error::Error::BulkInput(_) => {
            // It would quote lengths only, but the encoder should have seen it.
            Error::new(Kind::Data, "A value does not fit its column in the database").caused_by(error.to_string())
        }
        other => Error::new(Kind::Target, "The database server answers what was not asked")
            .hint("check that it is SQL Server, and that it has TLS unless ssl=disable is given")
            .caused_by(other.to_string()),
    }
}

/// Numbers of the server's sentences that quote values.
const ABOUT_VALUES: &[u32] = &[
    206, 210, 220, 232, 235, 237, 241, 242, 244, 245, 248, 257, 260, 293, 295, 402, 409, 515, 517, 529, 535, 547, 1505, 1508,
    1946, 2601, 2627, 2628, 3602, 3606, 3607, 4815, 4819, 4863, 4864, 4867, 4879, 7339, 8114, 8115, 8134, 8152, 8169, 9803,
    9807, 9819, 9833,
];

fn server_error(number: u32, text: &str) -> Error {
    if number == LOST_CHARACTERS
        && let Some(rest) = text.strip_prefix(LOST_CHARACTERS_PREFIX)
    {
        let (column, key) = rest.split_once('|').unwrap_or((rest, ""));
        return Error::new(Kind::Data, "A text has characters that the database's collation cannot hold")
            .with_field("column", column)
            .with_field("key", key)
            .hint("use a database whose collation ends with _UTF8; the table was not changed");
    }
    let (kind, message) = match number {
        _ if ABOUT_VALUES.contains(&number) => (Kind::Data, "The database refuses a value"),
        18_450..=18_490 | 4060 | 4064 | 916 | 40_615 => {
            (Kind::Target, "The database server does not let this user into this database")
        }
        978 | 3906 | 3908 => (Kind::Target, "The database is read-only"),
        1204 | 1205 | 1222 | 3960 | 3961 => (Kind::Conflict, "The database gave way to somebody else"),
        701 | 802 | 1101 | 1105 | 3967 | 8645 | 9002 | 40_544 | 40_552 => (Kind::Resources, "The database server has no room"),
        229 | 230 | 262 | 297 | 300 | 2760 | 15_247 => (Kind::Target, "The database does not let this user do it"),
        _ => (Kind::Target, "The database refuses a statement"),
    };
    let mut error = Error::new(kind, message).with_field("number", number);
    if kind != Kind::Data {
        if matches!(number, 978 | 3906 | 3908) {
            error = error
                .hint("if it is a secondary replica, connect to the primary server; else look for READ_ONLY of the database");
        }
        if number == 2705 {
            error = error.hint(
                "the database's collation does not tell two names apart: leave one column out with --drop-column, or rename yours",
            );
        }
        if matches!(number, 4922 | 5074 | 3725 | 3726) {
            error = error.hint("drop what depends on it, run again, and make it anew");
        }
        return error.caused_by(text.to_owned());
    }
    let names: &[&'static str] = match number {
        515 => &["column", "relation"],
        2601 => &["relation", "constraint"],
        2627 => &["constraint", "relation"],
        2628 => &["relation", "column"],
        547 => &["constraint"],
        1946 => &["constraint"],
        _ => &[],
    };
    let quote = if number == 547 { '"' } else { '\'' };
    // The names come first; a value would be the third and later.
    for (name, value) in names.iter().zip(text.split(quote).skip(1).step_by(2)) {
        error = error.with_field(name, value);
    }
    if matches!(number, 2601 | 2627) {
        error = error.hint(
            "keys and words that the database's collation takes for the same cannot be kept apart there: use one that is case- \
             and accent-sensitive, such as Latin1_General_100_BIN2_UTF8",
        );
    }
    error
}

/// Number and beginning of the sentence that the dialect raises, followed by column, `|` and key.
const LOST_CHARACTERS: u32 = 50_000;
pub(super) const LOST_CHARACTERS_PREFIX: &str = "daplake: lost characters: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_things_and_no_values() {
        let error = server_error(
            2627,
            "Violation of PRIMARY KEY constraint 'pk_canvas_t'. Cannot insert duplicate key in object 'canvas.t'. The duplicate \
             key value is ('secret').",
        );
        assert_eq!(
            (error.kind(), error.get("constraint"), error.get("relation")),
            (Kind::Data, Some("pk_canvas_t"), Some("canvas.t"))
        );
        let cut = server_error(
            2628,
            "String or binary data would be truncated in table 'db.canvas.t', column 'name'. Truncated value: 'secret'.",
        );
        assert_eq!((cut.get("relation"), cut.get("column")), (Some("db.canvas.t"), Some("name")));
        let null = server_error(
            515,
            "Cannot insert the value NULL into column 'c', table 'db.canvas.t'; column does not allow nulls.",
        );
        assert_eq!((null.get("column"), null.get("relation")), (Some("c"), Some("db.canvas.t")));
        let number = server_error(245, "Conversion failed when converting the nvarchar value 'secret' to data type int.");
        for error in [error, cut, null, number] {
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let blocked = server_error(5074, "The object 'seen' is dependent on column 'c'.");
        assert!(format!("{blocked:?}").contains("seen") && blocked.hint_text().is_some());
        let lost = server_error(LOST_CHARACTERS, "daplake: lost characters: name|id=5");
        assert_eq!((lost.kind(), lost.get("column"), lost.get("key")), (Kind::Data, Some("name"), Some("id=5")));
        assert_eq!(server_error(18_456, "Login failed for user 'x'.").kind(), Kind::Target);
        assert_eq!(server_error(1205, "deadlock").kind(), Kind::Conflict);
    }
}
