//! A scripted server of the protocol (MS-TDS 7.4), enough for sessions and bulk loads. It decodes what the client sends with code of its own,
//! records it, and answers by a script. It understands no SQL except the definition of the staging table.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    /// Database and user of a login.
    Login(String, String),
    /// A batch of statements, or a statement with parameters.
    Sql(String, Vec<Option<String>>),
    /// The rows of a bulk load, each value as text.
    Bulk(Vec<Vec<Option<String>>>),
    /// A request to stop the current statement.
    Attention,
    /// The end of the connection.
    End,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Done,
    /// Rows of strings.
    Rows(Vec<Vec<Option<String>>>),
    /// Success, with this count of rows.
    Taken(u64),
    /// Number and message of an error.
    Error(u32, &'static str),
    /// For a login: a redirection to another port.
    Route(u16),
    /// Ends the connection.
    Cut,
    /// No answer.
    Silence,
}

/// A row of one string.
pub(super) fn one(text: &str) -> Answer {
    Answer::Rows(vec![vec![Some(text.to_owned())]])
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

pub(super) struct Peer {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: Arc<tokio::sync::Notify>,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Establishes TLS on a stream.
pub(super) type Secure = dyn Fn(TcpStream) -> futures::future::BoxFuture<'static, Option<Box<dyn Stream>>> + Send + Sync;

impl Peer {
    /// Without TLS.
    pub(super) async fn new(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(script, None).await
    }

    pub(super) async fn with(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static, secure: Option<Arc<Secure>>) -> Self {
        Self::listening(script, secure, false).await
    }

    /// With strict encryption: TLS comes before the first message.
    pub(super) async fn strict(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static, secure: Arc<Secure>) -> Self {
        Self::listening(script, Some(secure), true).await
    }

    async fn listening(
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
        secure: Option<Arc<Secure>>,
        is_strict: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, changed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Notify::new()));
        let peer = Self { port, seen: Arc::clone(&seen), changed: Arc::clone(&changed) };
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if !is_strict {
                    let Some((0x12, _)) = receive(&mut stream).await else { continue };
                    send(&mut stream, &greeting(secure.is_some())).await;
                }
                let stream: Box<dyn Stream> = match &secure {
                    None => Box::new(stream),
                    Some(secure) if is_strict => {
                        let Some(mut stream) = secure(stream).await else { continue };
                        let Some((0x12, _)) = receive(&mut stream).await else { continue };
                        send(&mut stream, &greeting(true)).await;
                        stream
                    }
                    Some(secure) => match secure(stream).await {
                        Some(stream) => stream,
                        None => continue,
                    },
                };
                let talk = Talk {
                    stream,
                    script: Arc::clone(&script),
                    seen: Arc::clone(&seen),
                    changed: Arc::clone(&changed),
                    stage: Vec::new(),
                };
                tokio::spawn(talk.run());
            }
        });
        peer
    }

    pub(super) fn url(&self, query: &str) -> String {
        format!("mssql://me:secret@127.0.0.1:{}/db{query}", self.port)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the client has sent something.
    pub(super) async fn wait_for(&self, wanted: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            if self.seen().iter().any(&wanted) {
                return;
            }
            changed.await;
        }
    }
}

/// A column's type on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Bit,
    Int(u8),
    Float(u8),
    Decimal(u8, u8),
    Date,
    DateTime2(u8),
    Binary(u16),
    /// Length in bytes; 0xffff is unlimited.
    NVarchar(u16),
}

struct Talk {
    stream: Box<dyn Stream>,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    changed: Arc<tokio::sync::Notify>,
    /// Columns of the staging table.
    stage: Vec<(String, Type)>,
}

impl Talk {
    async fn run(mut self) {
        while let Some((kind, body)) = receive(&mut self.stream).await {
            let answer = match kind {
                0x10 => Seen::Login(login_text(&body, 68), login_text(&body, 40)),
                0x01 => Seen::Sql(utf16(&body[headers(&body)..]), Vec::new()),
                0x03 => rpc(&body[headers(&body)..]),
                0x07 => Seen::Bulk(bulk(&body)),
                0x06 => Seen::Attention,
                other => panic!("a message of kind {other:#x}"),
            };
            self.note(answer.clone());
            if !self.answer(answer).await {
                break;
            }
        }
        self.note(Seen::End);
    }

    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
        self.changed.notify_waiters();
    }

    /// Returns whether the connection continues.
    async fn answer(&mut self, seen: Seen) -> bool {
        let is_login = matches!(seen, Seen::Login(..));
        let mut tokens = Vec::new();
        let answer = (self.script)(&seen);
        let taken = if let Answer::Taken(count) = answer { Some(count) } else { None };
        match (&seen, answer) {
            (_, Answer::Cut) => return false,
            (_, Answer::Silence) => return true,
            (_, Answer::Error(number, text)) => {
                let message = wide(text);
                let mut body = number.to_le_bytes().to_vec();
                body.extend_from_slice(&[1, 16]);
                body.extend_from_slice(&(text.len() as u16).to_le_bytes());
                body.extend(message);
                body.extend_from_slice(&[0, 0, 1, 0, 0, 0]);
                tokens.push(0xaa);
                tokens.extend_from_slice(&(body.len() as u16).to_le_bytes());
                tokens.extend(body);
                done(&mut tokens, 2, 0);
                send(&mut self.stream, &tokens).await;
                return !is_login;
            }
            (_, Answer::Route(port)) => {
                let host = wide("127.0.0.1");
                let mut value = vec![0];
                value.extend_from_slice(&port.to_le_bytes());
                value.extend_from_slice(&9_u16.to_le_bytes());
                value.extend(host);
                let mut body = vec![20];
                body.extend_from_slice(&(value.len() as u16).to_le_bytes());
                body.extend(value);
                body.extend_from_slice(&[0, 0]);
                tokens.push(0xe3);
                tokens.extend_from_slice(&(body.len() as u16).to_le_bytes());
                tokens.extend(body);
            }
            (Seen::Sql(text, _), Answer::Done) if text.starts_with("SELECT TOP 0 ") => {
                metadata(&mut tokens, &self.stage);
            }
            (Seen::Sql(text, _), Answer::Done) => {
                if let Some(columns) = text.strip_prefix("CREATE TABLE [#daplake_stage] (\n") {
                    self.stage = columns.trim_end_matches("\n)").split(",\n").map(definition).collect();
                }
            }
            (_, Answer::Rows(rows)) => {
                let width = rows.first().map_or(1, Vec::len);
                let columns: Vec<(String, Type)> = (0..width).map(|_| (String::new(), Type::NVarchar(0xffff))).collect();
                metadata(&mut tokens, &columns);
                for row in rows {
                    tokens.push(0xd1);
                    for cell in row {
                        match cell {
                            None => tokens.extend_from_slice(&u64::MAX.to_le_bytes()),
                            Some(text) => {
                                let text = wide(&text);
                                tokens.extend_from_slice(&(text.len() as u64).to_le_bytes());
                                if !text.is_empty() {
                                    tokens.extend_from_slice(&(text.len() as u32).to_le_bytes());
                                    tokens.extend(text);
                                }
                                tokens.extend_from_slice(&[0; 4]);
                            }
                        }
                    }
                }
            }
            (_, Answer::Done | Answer::Taken(_)) => {}
        }
        if is_login {
            let program = wide("peer");
            let mut body = vec![1];
            body.extend_from_slice(&0x7400_0004_u32.to_be_bytes());
            body.push(4);
            body.extend(program);
            body.extend_from_slice(&[16, 0, 0, 0]);
            tokens.push(0xad);
            tokens.extend_from_slice(&(body.len() as u16).to_le_bytes());
            tokens.extend(body);
        }
        let count = match &seen {
            Seen::Bulk(rows) => taken.unwrap_or(rows.len() as u64),
            _ => 0,
        };
        done(&mut tokens, 0x10, count);
        send(&mut self.stream, &tokens).await;
        true
    }
}

/// Version, whether TLS is offered, no instance, thread, no multiple result sets.
fn greeting(has_tls: bool) -> Vec<u8> {
    let tls = [if has_tls { 1 } else { 2 }];
    let options: [(u8, &[u8]); 5] = [(0, &[16, 0, 0, 1, 0, 0]), (1, &tls), (2, &[0]), (3, &[0, 0, 0, 0]), (4, &[0])];
    let (mut head, mut data) = (Vec::new(), Vec::new());
    for (token, value) in options {
        head.push(token);
        head.extend_from_slice(&((options.len() * 5 + 1 + data.len()) as u16).to_be_bytes());
        head.extend_from_slice(&(value.len() as u16).to_be_bytes());
        data.extend_from_slice(value);
    }
    head.push(0xff);
    head.extend(data);
    head
}

/// A whole message.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).await.ok()?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])) - 8;
        let start = body.len();
        body.resize(start + length, 0);
        stream.read_exact(&mut body[start..]).await.ok()?;
        if header[1] & 1 == 1 {
            return Some((header[0], body));
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), tokens: &[u8]) {
    let mut chunks = tokens.chunks(4000).peekable();
    while let Some(chunk) = chunks.next() {
        let mut packet = vec![0x04, u8::from(chunks.peek().is_none())];
        packet.extend_from_slice(&(chunk.len() as u16 + 8).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 1, 0]);
        packet.extend_from_slice(chunk);
        let _ = stream.write_all(&packet).await;
    }
    let _ = stream.flush().await;
}

fn done(tokens: &mut Vec<u8>, status: u16, count: u64) {
    tokens.push(0xfd);
    tokens.extend_from_slice(&status.to_le_bytes());
    tokens.extend_from_slice(&[0, 0]);
    tokens.extend_from_slice(&count.to_le_bytes());
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
    String::from_utf16(&units).unwrap()
}

/// Length of the headers before a request.
fn headers(body: &[u8]) -> usize {
    u32::from_le_bytes(body[..4].try_into().unwrap()) as usize
}

/// A string of the login, by the position of its offset and length.
fn login_text(body: &[u8], place: usize) -> String {
    let number = |at: usize| usize::from(u16::from_le_bytes([body[at], body[at + 1]]));
    utf16(&body[number(place)..][..number(place + 2) * 2])
}

/// A column of the staging table, from its definition.
fn definition(text: &str) -> (String, Type) {
    let (name, sql_type) = text.strip_prefix('[').unwrap().rsplit_once("] ").unwrap();
    let sql_type = sql_type.strip_suffix(" NULL").expect("staged columns take nulls");
    let sql_type = sql_type.trim_end_matches(" COLLATE DATABASE_DEFAULT");
    let (base, numbers) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    let numbers: Vec<u16> = numbers.trim_end_matches(')').split(',').filter_map(|number| number.parse::<u16>().ok()).collect();
    let found = match base {
        "bit" => Type::Bit,
        "smallint" => Type::Int(2),
        "int" => Type::Int(4),
        "bigint" => Type::Int(8),
        "real" => Type::Float(4),
        "float" => Type::Float(8),
        "decimal" => Type::Decimal(numbers[0] as u8, numbers[1] as u8),
        "date" => Type::Date,
        "datetime2" => Type::DateTime2(numbers[0] as u8),
        "binary" => Type::Binary(numbers[0]),
        "nvarchar" => Type::NVarchar(numbers.first().map_or(0xffff, |number| number * 2)),
        other => panic!("a staged column of type {other}"),
    };
    (name.replace("]]", "]"), found)
}

fn metadata(tokens: &mut Vec<u8>, columns: &[(String, Type)]) {
    tokens.push(0x81);
    tokens.extend_from_slice(&(columns.len() as u16).to_le_bytes());
    for (name, column) in columns {
        // Nullable; whether it can be written is unknown.
        tokens.extend_from_slice(&[0, 0, 0, 0, 0x09, 0]);
        match column {
            Type::Bit => tokens.extend_from_slice(&[0x68, 1]),
            Type::Int(size) => tokens.extend_from_slice(&[0x26, *size]),
            Type::Float(size) => tokens.extend_from_slice(&[0x6d, *size]),
            Type::Decimal(precision, scale) => tokens.extend_from_slice(&[0x6a, 17, *precision, *scale]),
            Type::Date => tokens.push(0x28),
            Type::DateTime2(scale) => tokens.extend_from_slice(&[0x2a, *scale]),
            Type::Binary(length) => {
                tokens.push(0xad);
                tokens.extend_from_slice(&length.to_le_bytes());
            }
            Type::NVarchar(length) => {
                tokens.push(0xe7);
                tokens.extend_from_slice(&length.to_le_bytes());
                // English, code page 1252, as UTF-8 collations report it.
                tokens.extend_from_slice(&[0x09, 0x04, 0xd0, 0x00, 0x34]);
            }
        }
        tokens.push(name.encode_utf16().count() as u8);
        tokens.extend(wide(name));
    }
}

/// Reads bytes from the front.
struct Front<'b>(&'b [u8]);

impl<'b> Front<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> u64 {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes));
        u64::from_le_bytes(number)
    }

    /// A value in parts, as values of unlimited types are sent.
    fn parts(&mut self) -> Option<Vec<u8>> {
        if self.number(8) == u64::MAX {
            return None;
        }
        let mut whole = Vec::new();
        loop {
            match self.number(4) as usize {
                0 => return Some(whole),
                length => whole.extend_from_slice(self.take(length)),
            }
        }
    }

    fn nvarchar(&mut self, length: u16) -> Option<String> {
        let bytes = match length {
            0xffff => self.parts()?,
            _ => match self.number(2) as usize {
                0xffff => return None,
                length => self.take(length).to_vec(),
            },
        };
        Some(utf16(&bytes))
    }

    fn name(&mut self) -> String {
        let length = self.number(1) as usize * 2;
        utf16(self.take(length))
    }

    fn kind(&mut self) -> Type {
        match self.number(1) {
            0x68 => {
                self.take(1);
                Type::Bit
            }
            0x26 => Type::Int(self.number(1) as u8),
            0x6d => Type::Float(self.number(1) as u8),
            0x6a | 0x6c => {
                self.take(1);
                Type::Decimal(self.number(1) as u8, self.number(1) as u8)
            }
            0x28 => Type::Date,
            0x2a => Type::DateTime2(self.number(1) as u8),
            0xad | 0xa5 => Type::Binary(self.number(2) as u16),
            0xe7 => {
                let length = self.number(2) as u16;
                self.take(5);
                Type::NVarchar(length)
            }
            other => panic!("a value of type {other:#x}"),
        }
    }

    fn column(&mut self) -> (String, Type) {
        self.take(6);
        let kind = self.kind();
        (self.name(), kind)
    }

    fn value(&mut self, column: Type) -> Option<String> {
        match column {
            Type::NVarchar(length) => return self.nvarchar(length),
            Type::Binary(_) => {
                let length = self.number(2) as usize;
                return (length != 0xffff).then(|| self.take(length).iter().map(|byte| format!("{byte:02x}")).collect());
            }
            _ => {}
        }
        let length = self.number(1) as usize;
        if length == 0 {
            return None;
        }
        Some(match column {
            Type::Bit => self.number(1).to_string(),
            Type::Int(size) => {
                assert_eq!(usize::from(size), length);
                let shift = 64 - 8 * length as u32;
                (((self.number(length) << shift) as i64) >> shift).to_string()
            }
            Type::Float(4) => f32::from_bits(self.number(4) as u32).to_string(),
            Type::Float(_) => f64::from_bits(self.number(8)).to_string(),
            Type::Decimal(_, scale) => {
                let sign = if self.number(1) == 1 { "" } else { "-" };
                let mut number = [0; 16];
                number[..length - 1].copy_from_slice(self.take(length - 1));
                let digits = format!("{:0>width$}", u128::from_le_bytes(number), width = usize::from(scale) + 1);
                let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
                format!("{sign}{whole}.{fraction}")
            }
            Type::Date => day(self.number(3)),
            Type::DateTime2(scale) => {
                assert_eq!((scale, length), (6, 8));
                let micros = self.number(5);
                let date = day(self.number(3));
                let seconds = micros / 1_000_000;
                let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                format!("{date} {hours:02}:{minutes:02}:{seconds:02}.{:06}", micros % 1_000_000)
            }
            Type::NVarchar(_) | Type::Binary(_) => unreachable!("they were read before"),
        })
    }
}

/// A date from its number, which is 0 for the first day of year 1.
fn day(number: u64) -> String {
    chrono::NaiveDate::from_num_days_from_ce_opt(number as i32 + 1).unwrap().to_string()
}

fn rpc(body: &[u8]) -> Seen {
    let mut front = Front(body);
    assert_eq!((front.number(2), front.number(2)), (0xffff, 10), "statements with parameters are run as such");
    front.take(2);
    let mut parameters = Vec::new();
    while !front.0.is_empty() {
        front.name();
        front.take(1);
        let kind = front.kind();
        parameters.push(front.value(kind));
    }
    let values = parameters.split_off(2);
    Seen::Sql(parameters[0].clone().unwrap(), values)
}

fn bulk(body: &[u8]) -> Vec<Vec<Option<String>>> {
    let mut front = Front(body);
    assert_eq!(front.number(1), 0x81);
    let count = front.number(2);
    let columns: Vec<(String, Type)> = (0..count).map(|_| front.column()).collect();
    let mut rows = Vec::new();
    loop {
        match front.number(1) {
            0xd1 => rows.push(columns.iter().map(|(_, column)| front.value(*column)).collect()),
            0xfd => return rows,
            other => panic!("a token {other:#x} among rows"),
        }
    }
}
