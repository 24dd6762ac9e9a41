//! The pages of `status` and `schema`, and the same values as text and JSON: complete, self-contained, and shown by a real browser.

use std::path::{Path, PathBuf};

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::{TableRef, Timestamp};
use serde_json::Value;

use crate::support::browser::{browser, dom, dom_at, screenshot, screenshot_at};
use crate::support::{Run, World, bare_command, canvas, files_below, school};

/// The variable with a folder for screenshots.
const PICTURES: &str = "DAPLAKE_TEST_PICTURES";
/// The distance of the school's commits.
const COMMIT_MICROS: i64 = 4 * 3600 * 1_000_000;
const SYNC: [&str; 5] = ["sync", "--target", "lake", "--jobs-per-minute", "0"];

fn status(world: &World, more: &[&str]) -> Value {
    let mut arguments = vec!["status", "--target", "lake", "--output", "json"];
    arguments.extend(more);
    serde_json::from_str(&world.daplake(&arguments).assert_code(0).stdout).unwrap()
}

/// A lake after `syncs` syncs, each with newer data.
async fn grown(tables: &[&str], syncs: usize) -> World {
    let tables: Vec<_> = tables.iter().map(|table| canvas(table)).collect();
    grown_school(school(&tables), syncs).await
}

async fn grown_school(school: SchoolOptions, syncs: usize) -> World {
    let world = World::new(school).await;
    for number in 0..syncs {
        if number > 0 {
            world.school.advance();
        }
        world.daplake(&SYNC).assert_code(0);
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_shows_growth_and_runs() {
    let world = grown(&["users", "enrollments"], 3).await;
    let status = status(&world, &["--past", "10"]);
    let users = &status["tables"][1];
    assert_eq!((&users["table"], &users["state"]), (&"users".into(), &"behind".into()), "the data of the school is old");
    let past = users["past"].as_array().unwrap();
    assert_eq!(past.len(), 3);
    assert_eq!(past[2]["rows"], users["rows"]);
    assert_eq!(past[2]["bytes"], users["bytes"]);
    assert_eq!(past[2]["at"], users["data_as_of"]);
    assert_eq!(past[0]["rows"], past[0]["upserted"], "a first load");
    let runs = status["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    assert!(runs[0]["started"].as_str().unwrap() >= runs[2]["started"].as_str().unwrap(), "newest first");
    assert_eq!(runs[0]["tables"][0]["outcome"], "loaded");
    world.daplake(&["status", "--target", "lake"]).assert_code(0).assert_says(&[
        "canvas.users",
        "behind",
        "last runs:",
        "2 loaded, 0 unchanged, 0 failed",
    ]);
    let current = world.daplake(&["status", "--target", "lake", "--current-for", "99999d"]).assert_code(0);
    assert!(!current.stdout.contains("behind"), "{}", current.stdout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_table_is_listed_until_it_loads_again() {
    let world = grown(&["users"], 1).await;
    world.school.advance();
    world.server.inject(Fault::parse("malformed-line").unwrap(), Times::Always);
    world.daplake(&SYNC).assert_code(5);
    let line = status(&world, &[])["tables"][0].take();
    assert_eq!(line["state"], "failing");
    assert_eq!(line["failure"]["kind"], "data");
    let page = world.path("status.html");
    world
        .daplake(&["status", "--target", "lake", "--html", page.to_str().unwrap()])
        .assert_code(0)
        .assert_says(&["failing: canvas.users", "hint:"]);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("1 of 1 tables could not be updated"), "{text}");
    world.server.clear_faults();
    // The damaged object stays with its job.
    world.school.advance();
    world.daplake(&SYNC).assert_code(0);
    assert_eq!(status(&world, &["--current-for", "99999d"])["tables"][0]["state"], "current");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_never_loaded_and_runs_that_could_not_start_are_shown() {
    let world = grown(&["users"], 0).await;
    world.server.inject(Fault::parse("malformed-line").unwrap(), Times::Always);
    world.daplake(&SYNC).assert_code(5);
    assert_eq!(status(&world, &[])["never_loaded"][0]["table"], "canvas.users");
    world.server.inject(Fault::parse("account-disabled:tables").unwrap(), Times::Always);
    world.daplake(&SYNC).assert_code(5);
    let overview = status(&world, &[]);
    assert_eq!(overview["runs"][0]["failure"]["kind"], "account");
    assert!(!overview.to_string().contains(crate::support::CLIENT_SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_self_contained_and_fits_the_window() {
    // Data that is as recent as possible, with a longer history for screenshots that are kept.
    let syncs: i64 = if std::env::var_os(PICTURES).is_some() { 40 } else { 4 };
    let start = Timestamp::from_micros((Timestamp::now().micros() / COMMIT_MICROS - syncs + 1) * COMMIT_MICROS);
    let tables = ["assignments", "courses", "enrollments", "submissions", "users", "wiki_pages"].map(canvas);
    let world = grown_school(SchoolOptions { start, change_rate: 0.04, ..school(&tables) }, syncs as usize).await;
    let page = world.path("status.html");
    world.daplake(&["status", "--target", "lake", "--html", page.to_str().unwrap()]).assert_code(0);
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("Yes: all 6 tables are up to date"), "{text}");
    for word in ["http://", "https://", " src=", "@import", "url("] {
        assert!(!text.contains(word), "{word}");
    }
    // A screenshot need not show the path of the test's folder.
    std::fs::write(&page, text.replace(world.lake().to_str().unwrap(), "/srv/lake")).unwrap();
    let Some(browser) = browser() else { return };
    let seen = dom(&browser, &page);
    assert!(seen.contains("<body class=\"live\">"), "the script ran");
    assert!(seen.contains(">6 tables</span>"), "and counted the tables");
    assert_eq!(seen.matches("class=\"spark\"").count(), 6);
    let (wide, narrow) = (world.path("wide.png"), world.path("narrow.png"));
    assert_eq!(screenshot(&browser, &page, &wide, (1200, 1000), &[]), (1200, 1000));
    assert!(screenshot(&browser, &page, &narrow, (500, 900), &["--blink-settings=preferredColorScheme=0"]).0 >= 500);
    assert_ne!(std::fs::read(&wide).unwrap(), std::fs::read(&narrow).unwrap());
    keep(&wide, "status.png");
}

const DIAGRAM: [&str; 6] = ["schema", "--namespace", "canvas", "--table", "all", "--erd"];

#[test]
fn the_diagram_of_the_documentation_needs_no_service() {
    let drawn = |form: &str, more: &[&str]| {
        let arguments = [&DIAGRAM[..], &[form, "--erd-source", "documentation"], more].concat();
        Run::of(bare_command(&arguments).output().unwrap()).assert_code(0).stdout
    };
    let mermaid = drawn("mermaid", &[]);
    assert!(mermaid.starts_with("erDiagram\n"), "{mermaid}");
    assert!(mermaid.contains("canvas_submissions }o--|| canvas_assignments : \"assignment_id\""), "{mermaid}");
    assert!(drawn("mermaid", &["--erd-columns", "all"]).len() > mermaid.len());
    let dot = drawn("dot", &["--namespace", "canvas,canvas_logs", "--table", "web_logs,users,course*"]);
    assert!(dot.contains("canvas_logs_web_logs:c") && dot.contains("-> canvas_users:t"), "{dot}");
    assert!(!dot.contains("submissions"), "only what was chosen: {dot}");
    let mut unknown =
        bare_command(&["schema", "--namespace", "canvas", "--table", "usres", "--erd", "dot", "--erd-source", "documentation"]);
    Run::of(unknown.output().unwrap()).assert_code(5).assert_says(&["did you mean `users`?"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diagram_shows_the_schemas_of_the_service_by_default() {
    let world = World::new(school(&["users", "courses", "enrollments"].map(canvas))).await;
    let page = world.daplake(&[&DIAGRAM[..], &["html"]].concat()).assert_code(0).stdout;
    assert_eq!(page.matches("<article").count(), 3);
    assert!(page.contains("href=\"#canvas.courses\""), "{page}");
    assert_eq!(world.server.counters().jobs_started(), 0);
}

#[test]
fn the_diagram_can_be_searched_and_zoomed_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("diagram.html");
    let arguments = [&DIAGRAM[..], &["html", "--erd-source", "documentation"]].concat();
    let text = Run::of(bare_command(&arguments).output().unwrap()).assert_code(0).stdout;
    for word in ["http://", "https://", " src=", "@import", "url(http"] {
        assert!(!text.contains(word), "{word}");
    }
    std::fs::write(&page, text).unwrap();
    let Some(browser) = browser() else { return };
    let whole = dom(&browser, &page);
    assert!(
        whole.contains("tables</p>") && whole.contains("id=\"panel\" aria-live=\"polite\" hidden"),
        "nothing is chosen yet"
    );
    // The fragment of the address selects a table, like a click.
    let chosen = dom_at(&browser, &page, "#canvas.submissions");
    assert!(chosen.contains("aria-current=\"true\">submissions</a>"));
    assert!(chosen.contains("class=\"chosen\""));
    let view = |dom: &str| dom.split("id=\"picture\" viewBox=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_ne!(view(&whole), view(&chosen), "the view was moved");
    let picture = folder.path().join("diagram.png");
    assert_eq!(screenshot_at(&browser, &page, "#canvas.submissions", &picture, (1400, 900)), (1400, 900));
    keep(&picture, "diagram.png");
    screenshot(&browser, &page, &picture, (1400, 900), &[]);
    keep(&picture, "diagram-whole.png");
}

const DICTIONARY: [&str; 8] = ["schema", "--namespace", "all", "--table", "all", "--erd-source", "documentation", "--docs"];

fn dictionary(form: &str, more: &[&str]) -> String {
    Run::of(bare_command(&[&DICTIONARY[..], &[form], more].concat()).output().unwrap()).assert_code(0).stdout
}

/// The schemas of the repository with their tables.
fn documented() -> Vec<(TableRef, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let files = files_below(&folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&folder).unwrap().with_extension("");
        let (namespace, table) = inside.to_str()?.split_once('/')?;
        let answer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        Some((TableRef::new(namespace, table), answer["schema"].clone()))
    };
    files.filter_map(read).collect()
}

#[test]
fn the_dictionary_has_all_tables_columns_values_and_descriptions() {
    let (page, text) = (dictionary("html", &[]), dictionary("markdown", &[]));
    for word in ["http://", "https://", " src=", "@import", "url(http"] {
        assert!(!page.contains(word), "{word}");
    }
    let tables = documented();
    assert_eq!(tables.len(), 122);
    assert_eq!(page.matches("<article").count(), tables.len());
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    for (table, schema) in &tables {
        let article = page.split(&format!("<article id=\"{table}\">")).nth(1).unwrap().split("</article>").next().unwrap();
        let section = text.split(&format!("\n<a id=\"{table}\"></a>\n")).nth(1).unwrap().split("\n<a id=").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `")).collect::<Vec<_>>();
        let mut columns = 0;
        for group in ["key", "value"] {
            for (name, node) in schema["properties"][group]["properties"].as_object().into_iter().flatten() {
                columns += 1;
                assert!(article.contains(&format!("<code>{name}</code>")), "{table}.{name} in HTML");
                let row = rows.iter().find(|row| row.starts_with(&format!("| `{name}`")));
                let row = row.unwrap_or_else(|| panic!("{table}.{name} in Markdown"));
                assert_eq!(row.replace("\\|", "").matches('|').count(), 4, "{row}");
                for value in node["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    assert!(article.contains(&format!("<code>{}</code>", escaped(value))), "{table}.{name}: {value} in HTML");
                    assert!(row.contains(&format!("`{value}`")), "{table}.{name}: {value} in {row}");
                }
                if let Some(description) = node["description"].as_str() {
                    assert!(article.contains(&escaped(description)), "{table}.{name}: {description}");
                }
            }
        }
        assert!(rows.len() >= columns, "{table}: {} rows for {columns} columns", rows.len());
    }
    // References are links in both directions, and boxes of the diagram lead to the tables.
    let submissions = page.split("<article id=\"canvas.submissions\">").nth(1).unwrap().split("</article>").next().unwrap();
    assert!(submissions.contains("<a href=\"#canvas.assignments\">canvas.assignments</a>"));
    assert!(page.contains("id=\"diagram:canvas.submissions\" href=\"#canvas.submissions\""));
    assert!(text.contains("Refers to [canvas.assignments](#canvas.assignments)"));
}

#[test]
fn the_dictionary_has_the_chosen_tables_only() {
    let text = dictionary("markdown", &["--namespace", "canvas", "--table", "users,course*"]);
    assert!(text.contains("\n## canvas.courses\n") && !text.contains("canvas.submissions]"), "{text}");
    assert!(text.contains("```mermaid\nerDiagram\n"), "few tables are drawn");
    assert!(!dictionary("markdown", &[]).contains("```mermaid"), "Mermaid cannot draw all tables");
    let run = Run::of(bare_command(&[&DICTIONARY[..], &["html", "--namespace", "canvs"]].concat()).output().unwrap());
    run.assert_code(5).assert_says(&["canvs", "canvas, canvas_logs, catalog"]);
    for more in [["--erd", "html"], ["--ddl", "duckdb"]] {
        let run = Run::of(bare_command(&[&DICTIONARY[..], &["html"], &more].concat()).output().unwrap());
        run.assert_code(2).assert_says(&["cannot be used with"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dictionary_shows_the_schemas_of_the_service_by_default() {
    let world = World::new(school(&["users", "courses"].map(canvas))).await;
    let page = world.daplake(&["schema", "--namespace", "canvas", "--table", "all", "--docs", "html"]).assert_code(0).stdout;
    assert_eq!(page.matches("<article").count(), 2);
    assert_eq!(world.server.counters().jobs_started(), 0);
}

/// `DAPLAKE_TEST_PICTURES` names a folder in which screenshots are kept.
fn keep(picture: &Path, name: &str) {
    if let Some(folder) = std::env::var_os(PICTURES) {
        std::fs::copy(picture, Path::new(&folder).join(name)).unwrap();
    }
}
