//! `demo` and `serve`: the embedded DAP server with generated data.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::demo::ServeArgs;
use crate::cli::terminal::output::out;
use crate::demo::school::{School, SchoolOptions};
use crate::demo::serve::{ServeOptions, Server};
use crate::error::Result;
use crate::model::Timestamp;

/// Client id and secret of the embedded server. Its data is generated, so they protect nothing.
const CREDENTIALS: (&str, &str) = ("demo#00000000-0000-4000-8000-000000000001", "demo-secret");
/// Time between two commits of the school.
const COMMIT_DISTANCE_MICROS: i64 = 4 * 3600 * 1_000_000;

/// The time of the first of `commits` commits, so that the last one is within the last 4 hours.
fn start_of(commits: u32) -> Timestamp {
    let last = Timestamp::now().micros() / COMMIT_DISTANCE_MICROS;
    Timestamp::from_micros((last - i64::from(commits) + 1) * COMMIT_DISTANCE_MICROS)
}

fn serve_options(port: u16) -> ServeOptions {
    ServeOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        credentials: (CREDENTIALS.0.to_owned(), CREDENTIALS.1.to_owned()),
        job_delay: (Duration::from_millis(20), Duration::from_millis(50)),
        limits: [0; 5],
        ..ServeOptions::default()
    }
}

pub(in crate::cli) async fn serve(args: ServeArgs) -> Result<()> {
    use crate::demo::serve::{Fault, Times};

    if args.fault.iter().any(|fault| fault == "list") {
        let lines: Vec<String> = Fault::catalogue().iter().map(|fault| format!("{fault}\n")).collect();
        return out(&lines.concat());
    }
    let school = Arc::new(School::new(SchoolOptions {
        seed: args.seed,
        rows: args.rows,
        change_rate: args.change_rate,
        commits: args.commits.max(1),
        start: args.start.unwrap_or_else(|| start_of(args.commits.max(1))),
        evolving: true,
        ..SchoolOptions::default()
    }));
    let options = ServeOptions {
        rows_per_object: args.rows_per_object.max(1),
        cache: args.cache,
        commit_every: args.commit_every,
        limits: if args.limits { [5, 500, 5, 500, 200] } else { [0; 5] },
        ..serve_options(args.port)
    };
    let server = Server::start(school.clone(), options).await?;
    for fault in &args.fault {
        server.inject(Fault::parse(fault)?, Times::Always);
    }
    out(&format!(
        "Serving a generated school at {url}\nIts data is as of {now}; each commit covers 4 hours.\n\nIn another terminal:\n  export DAP_API_URL={url} DAP_CLIENT_ID='{id}' DAP_CLIENT_SECRET={secret}\n  daplake sync --target ./lake --namespace all --jobs-per-minute 0\n\nPress Ctrl-C to stop.\n",
        url = server.url().as_str().trim_end_matches('/'),
        now = school.now(),
        id = CREDENTIALS.0,
        secret = CREDENTIALS.1,
    ))?;
    std::future::pending().await
}

#[cfg(feature = "lake")]
pub(in crate::cli) use walk::demo;

#[cfg(feature = "lake")]
mod walk {
    //! The steps of the demo: a first sync, three more with changes, a status, a query.

    use std::path::Path;

    use super::*;
    use crate::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
    use crate::cli::args::demo::DemoArgs;
    use crate::cli::commands::{context, query, status};
    use crate::cli::terminal::output::counted;
    use crate::cli::terminal::report;
    use crate::error::{Error, Kind, ResultExt};
    use crate::ops::{self, Report, Selection, SyncRequest, Target};
    use crate::redact::{Secret, visible};

    /// Commits of the school during the demo.
    const COMMITS: u32 = 4;
    /// Marks a folder that the demo created and may empty.
    const MARKER: &str = ".made-by-daplake-demo";
    /// Tables in the status, and schema changes of a step, that are printed without `--verbose`.
    const SHOWN: usize = 8;

    const QUERY: &str = "SELECT c.name AS course, count(DISTINCT e.user_id) AS people, count(DISTINCT s.id) AS submissions, \
        round(avg(s.score), 1) AS mean_score \
        FROM courses c JOIN enrollments e ON e.course_id = c.id LEFT JOIN submissions s ON s.course_id = c.id \
        GROUP BY c.name ORDER BY submissions DESC, course LIMIT 8";

    pub(in crate::cli) async fn demo(args: DemoArgs) -> Result<()> {
        prepare(&args.dir)?;
        let school = Arc::new(School::new(SchoolOptions {
            seed: args.seed,
            rows: args.rows,
            change_rate: 0.02,
            commits: 1,
            start: start_of(COMMITS),
            evolving: true,
            ..SchoolOptions::default()
        }));
        let server = Server::start(school.clone(), serve_options(0)).await?;
        let target = Target::Folder(args.dir.clone());
        let shown = args.dir.display();

        out(&format!(
            "1. A generated school is served at {} (no account, no network).
   First sync of all its tables into {}:

",
            server.url(),
            Path::new(".").join(&args.dir).display()
        ))?;
        run(&server, &target, args.verbose).await?;
        for round in 2..=COMMITS {
            let now = school.advance();
            out(&format!(
                "\n{round}. The school's data changes (it is now as of {now}); the next sync loads only the changes:\n\n"
            ))?;
            run(&server, &target, args.verbose).await?;
        }

        let engine = context::default_engine()?;
        let lake = ops::open_lake(&target, &engine)?;
        let lines = ops::status(lake.sink().as_ref(), &[]).await?;
        let count = if args.verbose { lines.len() } else { lines.len().min(SHOWN) };
        out(&format!("\n5. `daplake status --target {shown}`:\n\n{}", status::status_text(&lines[..count])))?;
        if count < lines.len() {
            out(&format!("... and {} (--verbose lists all)\n", counted((lines.len() - count) as u64, "more table")))?;
        }
        out(&format!("\n6. `daplake query --target {shown} \"{QUERY}\"`:\n\n"))?;
        query::print_query(&lake, &engine, QUERY).await?;
        out(&format!(
            "\nNext steps:\n  daplake query --target {shown} \"SELECT workflow_state, count(*) FROM users GROUP BY 1\"\n  python3 -c \"from deltalake import DeltaTable; print(DeltaTable('{shown}/canvas/users').to_pandas())\"\n  daplake status --target {shown} --html status.html        # the same as a web page\n  with your own API key:  DAP_CLIENT_ID='region#id' DAP_CLIENT_SECRET=... daplake sync --target ./lake\n"
        ))
    }

    /// Creates the folder, or empties that of an earlier demo. Kind `Usage` if it contains other files.
    fn prepare(dir: &Path) -> Result<()> {
        let failed = |what: &str| format!("The folder for the demo cannot be {what}: {}", dir.display());
        if dir.exists() {
            let is_empty = dir.read_dir().context(Kind::Io, failed("read"))?.next().is_none();
            if !is_empty && !dir.join(MARKER).exists() {
                let message = failed("used, because it contains other files");
                return Err(Error::new(Kind::Usage, message).hint("give another folder with --dir"));
            }
            std::fs::remove_dir_all(dir).context(Kind::Io, failed("emptied"))?;
        }
        std::fs::create_dir_all(dir).context(Kind::Io, failed("created"))?;
        std::fs::File::create(dir.join(MARKER)).context(Kind::Io, failed("written")).map(drop)
    }

    async fn run(server: &Server, target: &Target, is_verbose: bool) -> Result<()> {
        let client = Client::new(ClientOptions {
            base_url: server.url(),
            credentials: Credentials { client_id: CREDENTIALS.0.to_owned(), client_secret: Secret::new(CREDENTIALS.1) },
            pacing: Pacing { job_starts: 0, ..Pacing::default() },
            retry: RetryPolicy::default(),
            ca_bundle: None,
            poll: (Duration::from_millis(30), Duration::from_millis(500)),
            idle_timeout: Duration::from_secs(60),
        })?;
        let engine = context::default_engine()?;
        let sink = ops::open_sink(target, &engine)?;
        let request = SyncRequest { concurrency: 4, ..SyncRequest::new(client, sink, engine, Selection::all_of("all")) };
        let report = ops::sync(request).await?;
        out(&if is_verbose { format!("\n{}", report::summary(&report)) } else { short_summary(&report) })?;
        report::finish_one(report)
    }

    /// The totals of a run, its first schema changes, and the number of notes.
    fn short_summary(report: &Report) -> String {
        let mut text = report::totals(report);
        let changes: Vec<String> = report
            .tables
            .iter()
            .flat_map(|table| report::schema_changes(table).iter().map(move |change| (table, change)))
            .map(|(table, change)| format!("schema: {}: {}\n", table.table, visible(change)))
            .collect();
        text.extend(changes.iter().take(SHOWN).map(String::as_str));
        if changes.len() > SHOWN {
            text.push_str(&format!("... and {}\n", counted((changes.len() - SHOWN) as u64, "more schema change")));
        }
        let notes = report.warnings.len() + report.tables.iter().map(|table| table.warnings.len()).sum::<usize>();
        if notes > 0 {
            text.push_str(&format!("{} (--verbose prints them)\n", counted(notes as u64, "note")));
        }
        text
    }
}
