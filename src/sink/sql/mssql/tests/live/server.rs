//! A SQL Server for tests: the existing one in `DAPLAKE_TEST_MSSQL`. Tables are read by statements, not by the sink under test.

use serde_json::{Map, Value, json};
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use url::Url;

/// A database for one test.
pub struct Database {
    pub url: String,
    /// The URL of the database from which others are created.
    first: Url,
    name: String,
}

/// A column in the catalogue.
#[allow(dead_code, reason = "not all tests look at all of it")]
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// The name of the type without its parameters.
    pub base: String,
    pub precision: u8,
    pub scale: i8,
    /// Its lookup table.
    pub lookup: Option<String>,
}

async fn connect(url: &Url) -> Box<Client<Compat<tokio::net::TcpStream>>> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let mut config = Config::new();
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap_or(1433));
    config.host(host);
    config.port(port);
    let database = url.path().trim_start_matches('/');
    if !database.is_empty() {
        config.database(database);
    }
    config.authentication(AuthMethod::sql_server(decode(url.username()), decode(url.password().unwrap_or_default())));
    config.trust_cert();
    let plain = url.query_pairs().any(|(name, value)| name == "ssl" && value == "disable");
    config.encryption(if plain { EncryptionLevel::NotSupported } else { EncryptionLevel::On });
    let stream = tokio::net::TcpStream::connect((host, port)).await.unwrap();
    Box::new(Box::pin(Client::connect(config, stream.compat_write())).await.unwrap())
}

async fn run(url: &Url, sql: &str) -> tiberius::Result<Vec<Vec<ColumnData<'static>>>> {
    let mut client = connect(url).await;
    let rows = client.simple_query(sql).await?.into_results().await?;
    Ok(rows.into_iter().flatten().map(|row| row.into_iter().collect()).collect())
}

fn quote(name: &str) -> String {
    format!("[{}]", name.replace(']', "]]"))
}

impl Database {
    /// `None` if there is no server and none is required.
    pub async fn new() -> Option<Self> {
        let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "mssql"));
        let Ok(first) = std::env::var("DAPLAKE_TEST_MSSQL") else {
            assert!(!required, "DAPLAKE_TEST_MSSQL is not set");
            eprintln!("not run: mssql (set DAPLAKE_TEST_MSSQL)");
            return None;
        };
        let first: Url = first.parse().expect("DAPLAKE_TEST_MSSQL is a connection string");
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        let create = format!("CREATE DATABASE {name}");
        // Babelfish lacks this collation, but stores UTF-8 with any.
        if run(&first, &format!("{create} COLLATE Latin1_General_100_CI_AS_SC_UTF8")).await.is_err() {
            run(&first, &create).await.unwrap();
        }
        let mut url = first.clone();
        url.set_path(&name);
        Some(Self { url: url.to_string(), first, name })
    }

    /// The first column of each row, as text.
    pub async fn words(&self, sql: &str) -> Vec<String> {
        let rows = run(&self.url.parse().unwrap(), sql).await.unwrap();
        rows.into_iter().map(|row| word(&row[0])).collect()
    }

    pub async fn columns(&self, namespace: &str, table: &str) -> Vec<Column> {
        let table = format!("{}.{}", quote(namespace), quote(table)).replace('\'', "''");
        let sql = format!(
            "SELECT c.name, t.name, CAST(c.precision AS int), CAST(c.scale AS int), (SELECT MAX(r.name) \
             FROM sys.foreign_key_columns f JOIN sys.tables r ON r.object_id = f.referenced_object_id \
             WHERE f.parent_object_id = c.object_id AND f.parent_column_id = c.column_id) \
             FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.user_type_id \
             WHERE c.object_id = OBJECT_ID(N'{table}') ORDER BY c.column_id"
        );
        let rows = run(&self.url.parse().unwrap(), &sql).await.unwrap();
        rows.into_iter()
            .map(|row| Column {
                name: word(&row[0]),
                base: word(&row[1]),
                precision: word(&row[2]).parse().unwrap(),
                scale: word(&row[3]).parse().unwrap(),
                lookup: Some(word(&row[4])).filter(|name| name != "null"),
            })
            .collect()
    }

    /// All rows as objects: timestamps as microseconds and dates as days since 1970, floats and decimals as text. `addresses` are columns whose
    /// bytes are not UUIDs.
    pub async fn rows(&self, namespace: &str, table: &str, addresses: &[&str]) -> Vec<Value> {
        let columns = self.columns(namespace, table).await;
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                let name = format!("x.{}", quote(&column.name));
                match (&column.lookup, column.base.as_str()) {
                    (Some(lookup), _) => format!(
                        "(SELECT CAST(l.[value] AS nvarchar(max)) FROM {}.{} l WHERE l.[id] = {name})",
                        quote(namespace),
                        quote(lookup)
                    ),
                    (None, "varchar" | "char") => format!("CAST({name} AS nvarchar(max))"),
                    (None, "decimal" | "numeric") => format!("CAST({name} AS nvarchar(100))"),
                    (None, "date") => format!("DATEDIFF(day, CAST(N'1970-01-01' AS date), {name})"),
                    (None, "datetime2") => format!("DATEDIFF_BIG(microsecond, CAST(N'1970-01-01' AS datetime2), {name})"),
                    (None, "time") => format!("CAST({name} AS nvarchar(20))"),
                    _ => name,
                }
            })
            .collect();
        let sql = format!("SELECT {} FROM {}.{} x", values.join(", "), quote(namespace), quote(table));
        let rows = run(&self.url.parse().unwrap(), &sql).await.unwrap();
        rows.into_iter()
            .map(|row| {
                let cells = columns.iter().zip(row).map(|(column, cell)| {
                    let value = value(column, cell, addresses.contains(&column.name.as_str()));
                    (column.name.clone(), value)
                });
                Value::Object(cells.collect::<Map<String, Value>>())
            })
            .collect()
    }
}

/// The value of a binary column: an IP address, or else a UUID.
fn value(column: &Column, cell: ColumnData<'static>, is_address: bool) -> Value {
    match cell {
        ColumnData::Bit(bit) => json!(bit),
        ColumnData::I16(number) => json!(number),
        ColumnData::I32(number) => json!(number),
        ColumnData::I64(number) => json!(number),
        ColumnData::F32(number) => json!(number.map(|number| number.to_string())),
        ColumnData::F64(number) => json!(number.map(|number| number.to_string())),
        ColumnData::String(Some(text)) if column.base == "time" => json!(clock(&text)),
        ColumnData::String(text) => json!(text),
        ColumnData::Binary(None) => Value::Null,
        ColumnData::Binary(Some(bytes)) => {
            let bytes: &[u8] = &bytes;
            json!(match (is_address, bytes) {
                (true, [a, b, c, d, rest @ ..]) if rest.iter().all(|byte| *byte == 0) => {
                    std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string()
                }
                (true, bytes) => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
                (false, bytes) => uuid::Uuid::from_slice(bytes).unwrap().to_string(),
            })
        }
        other => panic!("{}: {other:?} is not read", column.name),
    }
}

/// A time of day without the trailing zeros that the server adds.
fn clock(text: &str) -> String {
    let time: chrono::NaiveTime = text.parse().unwrap();
    // As many digits as necessary, in groups of three.
    time.format("%H:%M:%S%.f").to_string()
}

fn word(cell: &ColumnData<'static>) -> String {
    match cell {
        ColumnData::String(Some(text)) => text.to_string(),
        ColumnData::U8(Some(number)) => number.to_string(),
        ColumnData::I32(Some(number)) => number.to_string(),
        ColumnData::I64(Some(number)) => number.to_string(),
        _ => "null".to_owned(),
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (first, name) = (self.first.clone(), self.name.clone());
        // The runtime of the test may be shutting down.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = run(&first, &format!("ALTER DATABASE {name} SET SINGLE_USER WITH ROLLBACK IMMEDIATE")).await;
                let _ = run(&first, &format!("DROP DATABASE {name}")).await;
            });
        });
        let _ = gone.join();
    }
}
