//! The pages in a real browser: nothing is cut off in wide and narrow windows, text has enough contrast in both colour schemes, and
//! everything can be reached and used with the keyboard alone.

#![cfg(unix)]

use std::path::{Path, PathBuf};

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use serde_json::Value;

use crate::support::browser::browser;
use crate::support::browser_page::Page;
use crate::support::{Run, World, bare_command, canvas, school};

const CHECKS: &str = include_str!("accessibility.js");
const WIDE: (u32, u32) = (1280, 900);
const NARROW: (u32, u32) = (400, 800);

/// Tables of two namespaces, with relations, enumerations and nested columns. A page of all tables takes the browser many times as long.
const TABLES: &str = "submissions,submission_comments,users,courses,assignments,web_logs";
const TABLE_COUNT: usize = 6;

/// A page of `schema`, from the documentation of the tables.
fn of_schemas(folder: &Path, options: &[&str], name: &str) -> PathBuf {
    let arguments = ["schema", "--namespace", "canvas,canvas_logs", "--table", TABLES, "--erd-source", "documentation"];
    let run = Run::of(bare_command(&[&arguments[..], options].concat()).output().unwrap()).assert_code(0);
    let path = folder.join(name);
    std::fs::write(&path, run.stdout).unwrap();
    path
}

/// A status page with current, behind and failing tables, and long texts.
async fn of_status() -> (World, PathBuf) {
    let tables = ["accounts", "users", "courses", "assignment_override_students", "enrollments"].map(canvas);
    let world = World::new(SchoolOptions { change_rate: 0.1, ..school(&tables) }).await;
    let sync = ["sync", "--target", "lake", "--jobs-per-minute", "0"];
    world.daplake(&sync).assert_code(0);
    world.school.advance();
    world.daplake(&sync).assert_code(0);
    world.school.advance();
    world.server.inject_for(&canvas("courses"), Fault::parse("malformed-line").unwrap(), Times::Always);
    world.daplake(&sync).assert_code(5);
    let page = world.path("status.html");
    world.daplake(&["status", "--target", "lake", "--html", page.to_str().unwrap()]).assert_code(0);
    (world, page)
}

#[track_caller]
fn assert_readable(page: &mut Page, what: &str) {
    let found = page.evaluate(CHECKS);
    assert_eq!((&found["cut"], &found["faint"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{what}: {found:#}");
}

/// Opens a page and checks it at both widths, in both colour schemes, with and without scripts, at these fragments.
fn assert_readable_everywhere(page: &mut Page, file: &Path, fragments: &[&str]) {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    page.show(file, WIDE);
    for fragment in fragments {
        page.evaluate(&format!("location.hash = '{fragment}'; new Promise(requestAnimationFrame).then(() => 1)"));
        for size in [WIDE, NARROW] {
            page.resize(size);
            for is_dark in [false, true] {
                page.set_dark(is_dark);
                assert_readable(page, &format!("{name}#{fragment}, {} pixels, dark: {is_dark}", size.0));
            }
        }
    }
    page.set_dark(false);
    page.allow_scripts(false);
    page.show(file, WIDE);
    for size in [WIDE, NARROW] {
        page.resize(size);
        assert_readable(page, &format!("{name} without scripts, {} pixels", size.0));
    }
    page.allow_scripts(true);
}

/// Presses Tab and returns what has the focus: its id, or its name and text. The focus must be visible.
#[track_caller]
fn tab(page: &mut Page) -> String {
    page.press("Tab");
    let focus = page.evaluate(
        "(() => {
            const at = document.activeElement;
            if (at === document.body) return { name: 'body', ring: true };
            const ring = (element) => {
                const style = getComputedStyle(element);
                return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
            };
            const box = at.querySelector?.('.box');
            const isMarked = box && parseFloat(getComputedStyle(box).strokeWidth) >= 2.5;
            const area = at.getBoundingClientRect();
            const isInside = area.width > 0 && area.bottom > 0 && area.top < innerHeight;
            return { name: at.id || `${at.tagName.toLowerCase()} ${at.textContent.trim()}`, ring: (ring(at) || isMarked) && isInside };
        })()",
    );
    let name = focus["name"].as_str().unwrap().to_owned();
    assert_eq!(focus["ring"], true, "the focus on {name} is not visible");
    name
}

/// Presses Tab until an element has the focus.
#[track_caller]
fn tab_to(page: &mut Page, name: &str) {
    let mut seen = Vec::new();
    for _ in 0..40 {
        let at = tab(page);
        if at == name {
            return;
        }
        seen.push(at);
    }
    panic!("{name} cannot be reached: {seen:?}");
}

fn hash(page: &mut Page) -> String {
    page.evaluate("location.hash").as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_readable_and_need_no_mouse() {
    let Some(program) = browser() else { return };
    let (_world, status) = of_status().await;
    let folder = tempfile::tempdir().unwrap();
    let dictionary = of_schemas(folder.path(), &["--docs", "html"], "dictionary.html");
    let diagram = of_schemas(folder.path(), &["--erd", "html"], "diagram.html");
    // One browser for all pages: it takes longer to start than to check a page.
    let mut page = Page::start(&program);
    check_status(&mut page, &status);
    check_dictionary(&mut page, &dictionary);
    check_diagram(&mut page, &diagram);
}

fn check_status(page: &mut Page, file: &Path) {
    assert_readable_everywhere(page, file, &["overview", "canvas.users", "canvas.assignment_override_students"]);

    page.show(file, WIDE);
    tab_to(page, "filter");
    page.type_text("course");
    assert_eq!(page.evaluate("document.querySelectorAll('#list tbody tr:not([hidden])').length"), 1);
    page.press("Enter");
    assert_eq!(hash(page), "#canvas.courses");
    assert_eq!(page.evaluate("document.activeElement.tagName"), "H2", "the heading is read next");
    page.press("Escape");
    assert_eq!(page.evaluate("document.activeElement.getAttribute('href')"), "#canvas.courses", "back where the user was");

    // Columns are sorted by buttons in their heads, and names of tables are links.
    page.show(file, WIDE);
    tab_to(page, "button Table");
    page.press("Enter");
    let order = "[...document.querySelectorAll('#list tbody th')].map((cell) => cell.textContent.trim())";
    let ascending = page.evaluate(order);
    page.press("Enter");
    let mut descending = page.evaluate(order);
    descending.as_array_mut().unwrap().reverse();
    assert_eq!(ascending, descending);
    assert_eq!(page.evaluate("document.querySelector('[aria-sort]').getAttribute('aria-sort')"), "descending");
    let first = page.evaluate("document.querySelector('#list tbody a').textContent.trim()");
    tab_to(page, &format!("a {}", first.as_str().unwrap()));
    page.press("Enter");
    assert!(hash(page).ends_with(first.as_str().unwrap().rsplit('.').next().unwrap()));
}

fn check_diagram(page: &mut Page, file: &Path) {
    assert_readable_everywhere(page, file, &["", "canvas.submissions"]);

    page.show(file, WIDE);
    tab_to(page, "search");
    page.type_text("submission_comments");
    page.press("Enter");
    assert_eq!(hash(page), "#canvas.submission_comments");
    assert_eq!(page.evaluate("document.getElementById('panel').hidden"), false);
    page.press("Escape");
    assert_eq!(page.evaluate("document.getElementById('panel').hidden"), true);
    tab_to(page, "a canvas.submission_comments");
    page.press("Enter");
    assert_eq!(hash(page), "#canvas.submission_comments");
    // A box of the picture, and the buttons behind it.
    page.show(file, NARROW);
    page.evaluate("document.querySelector('#picture a').focus()");
    tab(page);
    page.press("Enter");
    assert!(hash(page).starts_with("#canvas"));
    page.evaluate("document.getElementById('in').focus()");
    let view = "document.getElementById('picture').getAttribute('viewBox')";
    let before = page.evaluate(view);
    page.press("Enter");
    assert_ne!(page.evaluate(view), before, "the button zooms");
}

fn check_dictionary(page: &mut Page, file: &Path) {
    assert_readable_everywhere(page, file, &["", "canvas.submissions"]);

    page.show(file, WIDE);
    tab_to(page, "search");
    let shown = "[...document.querySelectorAll('article')].filter((article) => !article.hidden).map((article) => article.id)";
    page.type_text("web_logs http_status");
    assert_eq!(page.evaluate(shown), serde_json::json!(["canvas_logs.web_logs"]));
    let marked = "[...document.querySelectorAll('tr.hit code')].map((code) => code.textContent)[0]";
    assert_eq!(page.evaluate(marked), "http_status", "the row is marked");
    page.press("Enter");
    assert_eq!(hash(page), "#canvas_logs.web_logs");
    assert_eq!(page.evaluate("document.activeElement.tagName"), "H2");
    page.press("Escape");
    assert_eq!(page.evaluate(shown).as_array().unwrap().len(), TABLE_COUNT, "Escape shows all tables");
    page.press("/");
    page.type_text("users");
    page.press("Enter");
    assert_eq!(hash(page), "#canvas.users", "the table of that name comes before others that contain it");

    // A link to a table that the search has hidden shows it, and a box of the diagram leads to its table.
    page.show(file, WIDE);
    tab_to(page, "search");
    page.type_text("canvas.submissions");
    page.evaluate("document.querySelector('#canvas\\\\.submissions a[href=\"#diagram:canvas.submissions\"]').focus()");
    page.press("Enter");
    assert_eq!(page.evaluate("getComputedStyle(document.querySelector('.table:target .box')).strokeWidth"), "3px");
    page.evaluate("document.querySelector('#picture a').focus()");
    assert_eq!(tab(page).split(':').next(), Some("diagram"));
    page.press("Enter");
    assert!(hash(page).starts_with("#canvas."));
    assert_eq!(page.evaluate("document.querySelector('article:target').hidden"), false);
}
