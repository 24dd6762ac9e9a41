//! OpenTelemetry: traces and metrics of a run reach a collector over real HTTP, as protobuf that is decoded here. Headers and addresses are
//! never printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use daplake::demo::serve::{Fault, Times};

use crate::support::{Run, World, canvas, school};

const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
const HEADERS: &str = "authorization=Bearer planted-header-secret";

struct Post {
    path: String,
    headers: String,
    body: Vec<u8>,
}

/// A collector that answers all requests with a status and forwards them.
fn collector(status: &'static str) -> (String, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (Ok(connection), send) = (connection, send.clone()) else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&connection);
                while let Some(post) = read_post(&mut reader) {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if send.send(post).is_err() || (&connection).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, receive)
}

fn read_post(reader: &mut BufReader<&TcpStream>) -> Option<Post> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some(Post { path: head.split(' ').nth(1)?.to_owned(), headers: head, body })
}

/// A field of a protobuf message.
#[derive(Clone, Copy)]
enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

impl<'a> Value<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            Value::Number(number) => panic!("field {number} is not a message"),
        }
    }

    fn text(self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * place);
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The values of the field `number`.
fn fields(mut message: &[u8], number: u64) -> Vec<Value<'_>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)),
            1 => {
                let (value, rest) = message.split_first_chunk().unwrap();
                message = rest;
                Value::Number(u64::from_le_bytes(*value))
            }
            2 => {
                let length = varint(&mut message) as usize;
                let (value, rest) = message.split_at(length);
                message = rest;
                Value::Bytes(value)
            }
            5 => {
                let (value, rest) = message.split_first_chunk().unwrap();
                message = rest;
                Value::Number(u32::from_le_bytes(*value).into())
            }
            wire => panic!("unknown wire type {wire}"),
        };
        if key >> 3 == number {
            found.push(value);
        }
    }
    found
}

/// The messages at the end of a path of field numbers.
fn at<'a>(message: &'a [u8], path: &[u64]) -> Vec<&'a [u8]> {
    path.iter().fold(vec![message], |messages, number| {
        messages.into_iter().flat_map(|message| fields(message, *number)).map(Value::bytes).collect()
    })
}

/// The string attributes in `field`, by name.
fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = at(message, &[field]);
    let text = |pair: &[u8]| Some(fields(at(pair, &[2]).first()?, 1).first()?.text());
    pairs.into_iter().filter_map(|pair| Some((fields(pair, 1)[0].text(), text(pair)?))).collect()
}

#[derive(Debug)]
struct Span {
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
    /// 2: an error.
    status: u64,
}

fn spans(posts: &[Post]) -> Vec<Span> {
    let traces = posts.iter().filter(|post| post.path == "/v1/traces");
    let messages = traces.flat_map(|post| at(&post.body, &[1, 2, 2]));
    let number = |message: &[u8], field| match fields(message, field)[..] {
        [Value::Number(number)] => number,
        _ => 0,
    };
    let bytes = |message: &[u8], field| fields(message, field).first().map(|value| value.bytes().to_vec()).unwrap_or_default();
    messages
        .map(|span| Span {
            id: bytes(span, 2),
            parent: bytes(span, 4),
            name: fields(span, 5)[0].text(),
            attributes: attributes(span, 9),
            events: at(span, &[11]).into_iter().map(|event| fields(event, 2)[0].text()).collect(),
            status: at(span, &[15]).first().map_or(0, |status| number(status, 3)),
        })
        .collect()
}

/// The latest values of metrics, by name and table.
fn values(posts: &[Post]) -> BTreeMap<(String, String), f64> {
    let mut found = BTreeMap::new();
    for post in posts.iter().filter(|post| post.path == "/v1/metrics") {
        for metric in at(&post.body, &[1, 2, 2]) {
            let name = fields(metric, 1)[0].text();
            for point in at(metric, &[5, 1]).into_iter().chain(at(metric, &[7, 1])) {
                let Some(Value::Number(bits)) = fields(point, 4).first().copied() else { panic!("{name} is not a double") };
                let table = attributes(point, 7).remove("table").unwrap_or_default();
                found.insert((name.clone(), table), f64::from_bits(bits));
            }
        }
    }
    found
}

fn sync(world: &World, variables: &[(&str, &str)], more: &[&str]) -> Run {
    let mut command = world.command(&[&SYNC[..], more].concat());
    Run::of(command.envs(variables.iter().copied()).output().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_sent_as_a_trace_and_as_metrics() {
    let world = World::new(school(&[canvas("accounts"), canvas("users")])).await;
    world.server.inject_for(&canvas("users"), Fault::parse("malformed-line").unwrap(), Times::Always);
    let (url, heard) = collector("200 OK");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", HEADERS),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let options = ["--notify-command", "env > env.txt", "--notify-on", "always", "--loglevel", "debug"];
    let run = sync(&world, &variables, &options).assert_code(5);
    assert!(!format!("{run:?}").contains("planted-header-secret"), "{run:?}");
    assert!(!std::fs::read_to_string(world.path("env.txt")).unwrap().contains("planted-header-secret"));
    let posts: Vec<Post> = heard.try_iter().collect();
    for post in &posts {
        assert!(post.headers.contains("content-type: application/x-protobuf"), "{}", post.headers);
        assert!(post.headers.contains("authorization: bearer planted-header-secret"), "{}", post.headers);
    }
    let resource =
        posts.iter().flat_map(|post| at(&post.body, &[1, 1])).map(|resource| attributes(resource, 1)).next().unwrap();
    let is = |name: &str| resource.get(name).map(String::as_str);
    assert_eq!((is("service.name"), is("service.version")), (Some("daplake"), Some(env!("CARGO_PKG_VERSION"))));
    assert_eq!(is("deployment.environment.name"), Some("test"));

    let spans = spans(&posts);
    let of = |name: &str, table: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        found
            .find(|span| span.attributes.get("table").is_none_or(|of| of == table))
            .unwrap_or_else(|| panic!("{name}: {spans:?}"))
    };
    let run = of("run", "");
    assert!(run.parent.is_empty() && run.attributes["run_id"].len() == 36, "{run:?}");
    let table = of("table", "canvas.accounts");
    assert_eq!((&table.parent, table.status), (&run.id, 0));
    assert_eq!(table.events, ["done"]);
    let load = of("load", "canvas.accounts");
    assert_eq!((&of("job", "canvas.accounts").parent, &load.parent), (&table.id, &table.id));
    assert_eq!(of("job", "canvas.accounts").events, ["job started"]);
    assert_eq!(of("commit", "canvas.accounts").parent, load.id);
    let download = spans.iter().filter(|span| span.name == "download" && span.parent == load.id);
    assert_eq!(download.count(), 1, "{spans:?}");
    let failed = of("table", "canvas.users");
    assert_eq!((failed.status, &failed.events[..]), (2, &["failure".to_owned()][..]), "{failed:?}");

    let figures = values(&posts);
    let rows = world.school.expected(&canvas("accounts"), world.school.now()).unwrap().len() as f64;
    let figure = |name: &str, table: &str| figures.get(&(name.to_owned(), table.to_owned())).copied();
    assert_eq!(figure("daplake.runs", ""), Some(1.0), "{figures:?}");
    assert_eq!(figure("daplake.job_starts", ""), Some(2.0));
    assert_eq!(figure("daplake.table_rows", "canvas.accounts"), Some(rows));
    assert_eq!(figure("daplake.upserted_rows", "canvas.accounts"), Some(rows));
    assert_eq!(figure("daplake.table_failures", "canvas.users"), Some(1.0));
    assert!(figure("daplake.received", "canvas.accounts").unwrap() > 0.0);
    assert!(figure("daplake.table_data_timestamp", "canvas.accounts").unwrap() > 1.5e9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_collector_does_not_change_the_run_or_print_a_secret() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let (url, heard) = collector("401 Unauthorized");
    let endpoint = format!("{url}/planted-path-secret");
    let log = world.path("run.log");
    let logged = ["--logfile", log.to_str().unwrap(), "--loglevel", "debug"];
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_HEADERS", HEADERS)];
    let run = sync(&world, &variables, &logged).assert_code(0);
    assert!(run.stdout.contains("1 loaded"), "{run:?}");
    let text = std::fs::read_to_string(&log).unwrap();
    for signal in ["traces", "metrics"] {
        let errors =
            text.lines().filter(|line| line.contains("cannot be sent") && line.contains(signal) && line.contains("401"));
        assert_eq!(errors.count(), 1, "{text}");
    }
    let paths: Vec<String> = heard.try_iter().map(|post| post.path).collect();
    assert!(paths.contains(&"/planted-path-secret/v1/traces".to_owned()), "{paths:?}");
    // Not a collector, and not an address.
    let closed_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (endpoint, words) in [
        (format!("http://{closed_port}/planted-path-secret"), "cannot be sent"),
        ("planted-path-secret".to_owned(), "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL"),
    ] {
        let run = sync(&world, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)], &logged).assert_code(0);
        assert!(run.stdout.contains("1 unchanged"), "{run:?}");
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains(words), "{text}");
        assert!(!format!("{run:?}").contains("planted"), "{run:?}");
    }
    assert!(!std::fs::read_to_string(&log).unwrap().contains("planted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_unless_the_variables_enable_it() {
    let world = World::new(school(&[canvas("accounts")])).await;
    let (url, heard) = collector("200 OK");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    sync(&world, &[endpoint, ("OTEL_SDK_DISABLED", "true")], &[]).assert_code(0);
    let none = [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")];
    sync(&world, &[&[endpoint], &none[..]].concat(), &[]).assert_code(0);
    let wrong = sync(&world, &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], &[]).assert_code(0);
    wrong.assert_says(&["OTEL_EXPORTER_OTLP_PROTOCOL is not http/protobuf"]);
    assert!(heard.try_recv().is_err());
    sync(&world, &[endpoint, none[0]], &[]).assert_code(0);
    let paths: Vec<String> = heard.try_iter().map(|post| post.path).collect();
    assert!(!paths.is_empty() && paths.iter().all(|path| path == "/v1/metrics"), "{paths:?}");
}
