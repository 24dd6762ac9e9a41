//! Sessions with SQL Server, with the driver `tiberius`: batches, statements with parameters, bulk loads.
//!
//! A session that saw an error, or was interrupted, is never used again: the server rolls its transaction back when the connection closes.
//! The driver logs messages of the server, which may quote values; its events are discarded here.

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
use super::errors::{from_driver, lost, untrusted};
use super::options::Options;
use super::tls::{self, Transport};
use super::types::Format;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::sql::connection::{
    Answer, Connection, CopyPlan, CopyTarget, Server, SystemRoots, TlsMode, tls_config, unreachable,
};
use crate::sink::sql::dialect::{Dialect, Row, Statement};

/// The time to open a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Redirections that are followed, as Azure's gateway sends them.
const MAX_HOPS: usize = 3;
/// Bytes of a packet: a little less than the largest that servers accept with TLS.
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
        let mut session = Session { client: client.hint(CONNECT_HINT)?, is_broken: false, plan: None };
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
            // The server may have no TLS, or fail at it. A login that it refused is neither.
            Err(error) if error.get("number").is_none() => {
                open_with(options, EncryptionLevel::NotSupported).await.map_err(|_| error)
            }
            other => other,
        },
        TlsMode::Require => open_with(options, EncryptionLevel::On).await,
        // TLS is established before the driver begins, so the driver itself uses none.
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
                tracing::debug!(host = next, port = next_port, "The server redirects to another address");
                (host, port) = (next, next_port);
            }
            Err(error) => return Err(from_driver(error)),
        }
    }
    Err(Error::new(Kind::Target, "The database server redirects too often").with_field("host", host))
}

/// TLS with a server whose certificate is trusted.
async fn verified(options: &Options, stream: TcpStream, host: &str) -> Result<Transport> {
    let name = options.certificate_name.as_deref().unwrap_or(host);
    let connected = if options.is_strict {
        let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
        tls::connect_strictly(stream, tls_config(options.tls_settings(), SystemRoots::Added, &versions)?, name).await
    } else {
        // TLS 1.3 has no place inside the protocol's packets.
        tls::connect(stream, tls_config(options.tls_settings(), SystemRoots::Added, &[&rustls::version::TLS12])?, name).await
    };
    connected.map_err(|failure| match failure {
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

/// Inserts one row with a statement of its own. Nulls are left out.
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
    client.execute(text, &values).await.map_err(from_driver)?;
    Ok(())
}

struct Session {
    client: Wire,
    /// Something failed, or was begun and not finished.
    is_broken: bool,
    /// The copy before, whose types need not be read again.
    plan: Option<CopyPlan<Format>>,
}

fn unusable() -> Error {
    Error::new(Kind::Target, "The database session cannot be used after an error")
}

/// The parameters for the driver. A null has the type of a string.
fn parameters(statement: &Statement) -> Vec<&dyn ToSql> {
    statement.parameters.iter().map(|value| value as &dyn ToSql).collect()
}

impl Session {
    async fn query(&mut self, statement: &Statement) -> Result<Vec<Row>> {
        if std::mem::replace(&mut self.is_broken, true) {
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
        let rows = answer.map_err(from_driver)?.into_iter().flatten().map(row).collect::<Option<Vec<Row>>>();
        let rows = rows.ok_or_else(|| Error::new(Kind::Bug, "The database answered with an unexpected type"))?;
        self.is_broken = false;
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

/// Sends a batch; returns its bytes.
async fn copy(client: &mut Wire, plan: &CopyPlan<Format>, batch: &RecordBatch) -> Result<u64> {
    let encoder = Encoder::new(plan, batch)?;
    let target = &plan.target;
    let names: Vec<&str> = target.columns.iter().map(|column| column.name.as_str()).collect();
    let mut request = client.bulk_insert_columns(&target.table, &names).await.map_err(from_driver)?;
    let (mut sent, mut long) = (0, Vec::new());
    for row in 0..batch.num_rows() {
        if encoder.is_long(row) {
            long.push(row);
            continue;
        }
        let row = encoder.row(row, &mut sent)?;
        request.send(row).await.map_err(from_driver)?;
    }
    let expected = (batch.num_rows() - long.len()) as u64;
    let taken = request.finalize().await.map_err(from_driver)?.total();
    if taken != expected {
        return Err(Error::new(Kind::Target, "The database server did not store all rows of a bulk load")
            .with_field("sent", expected)
            .with_field("stored", taken)
            .hint("the table was not changed; run the command again"));
    }
    for row in long {
        let row = encoder.row(row, &mut sent)?;
        insert(client, &target.table, &names, row).await?;
    }
    Ok(sent)
}

#[async_trait]
impl Connection for Session {
    /// The count of changed rows is the number that the statement selects last: the driver keeps no other count of a batch.
    async fn ask(&mut self, statement: &Statement) -> Result<Answer> {
        tracing::debug!(sql = statement.shown(), "Statement");
        let rows = self.query(statement).await?;
        let changed = rows.last().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0);
        Ok(Answer { rows, changed })
    }

    /// Rows are sent in packets; rows with a string that is too long for the driver's bulk path follow one by one. Waits for the server's
    /// answer, which must count all rows.
    async fn copy_in(&mut self, target: &CopyTarget, batch: &RecordBatch) -> Result<u64> {
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(unusable());
        }
        let plan = match self.plan.take().filter(|plan| plan.target == *target) {
            Some(plan) => plan,
            None => CopyPlan::new(target, Format::of),
        };
        let sent = copy(&mut self.client, &plan, batch).with_subscriber(NoSubscriber::default()).await?;
        self.plan = Some(plan);
        self.is_broken = false;
        Ok(sent)
    }

    fn is_idle(&self) -> bool {
        !self.is_broken
    }

    /// The driver does not expose the stream, so the server is asked.
    async fn is_alive(&mut self) -> bool {
        matches!(self.execute(&Statement::new(TRANSACTIONS_OPEN)).await, Ok(0))
    }
}
