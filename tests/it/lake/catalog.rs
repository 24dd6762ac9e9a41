//! Registration of tables in AWS Glue, played by the moto server.

use std::process::{Child, Command, Stdio};

use daplake::demo::school::SchoolOptions;
use serde_json::Value;

use crate::support::s3::S3Server;
use crate::support::stores::{free_ports, program, started};
use crate::support::{Run, World, canvas, school};

/// Calls Glue: `glue.py ENDPOINT ACTION JSON`, and prints the response.
const CALL: &str = "
import boto3, json, sys
glue = boto3.client('glue', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id='x', aws_secret_access_key='x')
print(json.dumps(getattr(glue, sys.argv[2])(**json.loads(sys.argv[3])), default=str))
";

/// AWS Glue. Its tables are in memory. It stops when dropped.
struct Glue {
    python: std::path::PathBuf,
    port: u16,
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Glue {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Glue {
    /// `None` if moto is not installed and not required.
    fn start() -> Option<Self> {
        let python = program("DAPLAKE_TEST_MOTO", "moto")?;
        let (folder, port) = (tempfile::tempdir().unwrap(), free_ports(1)[0]);
        let child = Self::process(&python, port, &folder);
        Some(Self { python, port, child, folder })
    }

    fn process(python: &std::path::Path, port: u16, folder: &tempfile::TempDir) -> Child {
        let mut command = Command::new(python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        started(command, folder.path().join("log"), port)
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.child = Self::process(&self.python, self.port, &self.folder);
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn call(&self, action: &str, arguments: &Value) -> Value {
        let mut command = Command::new(&self.python);
        command.args(["-c", CALL, &self.endpoint(), action, &arguments.to_string()]).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The tables of a database by name.
    fn tables(&self, database: &str) -> Vec<(String, Value)> {
        let found = self.call("get_tables", &serde_json::json!({"DatabaseName": database}));
        let mut tables: Vec<(String, Value)> = found["TableList"]
            .as_array()
            .unwrap()
            .iter()
            .map(|table| (table["Name"].as_str().unwrap().to_owned(), table.clone()))
            .collect();
        tables.sort_by(|one, other| one.0.cmp(&other.0));
        tables
    }
}

fn columns(table: &Value) -> Vec<String> {
    let columns = table["StorageDescriptor"]["Columns"].as_array().unwrap();
    columns.iter().map(|column| format!("{} {}", column["Name"].as_str().unwrap(), column["Type"].as_str().unwrap())).collect()
}

struct Lake {
    world: World,
    store: S3Server,
}

impl Lake {
    async fn new() -> Self {
        let tables = [canvas("users"), canvas("courses")];
        let world = World::new(SchoolOptions { evolving: true, rows: 50, ..school(&tables) }).await;
        Self { world, store: S3Server::start().await }
    }

    fn run(&self, glue: &Glue, arguments: &[&str]) -> Run {
        let target = self.store.url("lake");
        let mut command = self.world.command(&[&arguments[..1], &["--target", &target], &arguments[1..]].concat());
        Run::of(command.envs(self.store.variables()).env("AWS_ENDPOINT_URL_GLUE", glue.endpoint()).output().unwrap())
    }

    fn sync(&self, glue: &Glue, more: &[&str]) -> Run {
        self.run(glue, &[&["sync", "--catalog", "glue", "--jobs-per-minute", "0", "--report", "-"], more].concat())
    }
}

/// The warnings of the tables of a report.
fn warnings(run: &Run) -> Vec<String> {
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let tables = report["tables"].as_array().unwrap().iter();
    let warnings = tables.filter_map(|table| table["warnings"].as_array()).flatten();
    warnings.map(|warning| warning.as_str().unwrap().to_owned()).filter(|text| text.contains("catalog")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_appear_in_the_catalog_and_follow_schema_changes() {
    let Some(mut glue) = Glue::start() else { return };
    let lake = Lake::new().await;
    lake.run(&glue, &["check", "--catalog", "glue"]).assert_code(0).assert_says(&["catalog", "can be read"]);
    let first = lake.sync(&glue, &[]).assert_code(0);
    assert_eq!(warnings(&first), [""; 0]);
    let tables = glue.tables("canvas");
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["courses", "users"]);
    let users = &tables[1].1;
    assert_eq!(users["StorageDescriptor"]["Location"], "s3://lake-bucket/lake/canvas/users/");
    assert_eq!(users["TableType"], "EXTERNAL_TABLE");
    assert_eq!(users["Parameters"]["table_type"], "DELTA");
    assert_eq!(users["Parameters"]["spark.sql.sources.provider"], "delta");
    let version = lake.world.school.schema_version(&canvas("users"), lake.world.school.now()).unwrap();
    let source = lake.world.school.schema(&canvas("users"), version).unwrap();
    assert_eq!(users["Description"], source["description"]);
    assert!(columns(users)[0].starts_with("id bigint"), "{:?}", columns(users));
    let described = users["StorageDescriptor"]["Columns"].as_array().unwrap().iter();
    let mut comments = 0;
    for column in described.filter(|column| column["Comment"].is_string()) {
        let name = column["Name"].as_str().unwrap();
        let properties = &source["properties"];
        let described = [&properties["key"], &properties["value"]].map(|part| &part["properties"][name]["description"]);
        let text = described.iter().find_map(|text| text.as_str()).unwrap();
        let shown: String = text.replace('\n', " ").chars().take(255).collect();
        assert_eq!(column["Comment"], shown, "{name}");
        comments += 1;
    }
    assert!(comments > 0);

    // Without changes, the catalog is not called: it could be down.
    glue.stop();
    let again = lake.sync(&glue, &[]).assert_code(0);
    assert_eq!(warnings(&again), [""; 0]);
    assert!(!again.stderr.contains("catalog"), "{again:?}");

    // A schema change while it is down does not fail the load; `status` says so, and the next run tries again.
    let before = columns(users).len();
    lake.world.school.advance();
    let down = lake.sync(&glue, &[]).assert_code(0);
    let found = warnings(&down);
    assert!(found.len() == 1 && found[0].contains("not registered in the catalog: AWS Glue cannot be reached"), "{found:?}");
    lake.run(&glue, &["status"]).assert_code(0).assert_says(&["not registered in the catalog: canvas.users: AWS Glue cannot"]);
    glue.restart();
    let repaired = lake.sync(&glue, &[]).assert_code(0);
    assert_eq!(warnings(&repaired), [""; 0]);
    let tables = glue.tables("canvas");
    assert_eq!(tables.len(), 1, "the other table was registered before");
    assert_eq!(columns(&tables[0].1).len(), before + 1);
    let status = lake.run(&glue, &["status"]).assert_code(0);
    assert!(!status.stdout.contains("not registered"), "{status:?}");

    // A snapshot registers again what was dropped. What others have added to a table stays.
    let mut table = tables[0].1.clone();
    table["Parameters"]["theirs"] = "x".into();
    table["StorageDescriptor"]["Columns"] = serde_json::json!([]);
    let fields = ["Name", "TableType", "Parameters", "PartitionKeys", "StorageDescriptor"];
    let input: serde_json::Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), table[*field].clone())).collect();
    glue.call("update_table", &serde_json::json!({"DatabaseName": "canvas", "TableInput": input}));
    lake.sync(&glue, &["--resnapshot"]).assert_code(0);
    let tables = glue.tables("canvas");
    assert_eq!(tables.len(), 2);
    assert_eq!(tables[1].1["Parameters"]["theirs"], "x");
    assert_eq!(columns(&tables[1].1).len(), before + 1);
    lake.world.assert_tables_in(
        &lake.store.bucket().join("lake"),
        "deltalake",
        &[canvas("users"), canvas("courses")],
        lake.world.school.now(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_others_stay_as_they_are() {
    let Some(glue) = Glue::start() else { return };
    let lake = Lake::new().await;
    glue.call("create_database", &serde_json::json!({"DatabaseInput": {"Name": "school_canvas"}}));
    let storage = serde_json::json!({"Location": "s3://other/users/", "Columns": []});
    let theirs = serde_json::json!({"Name": "t_users", "StorageDescriptor": storage});
    glue.call("create_table", &serde_json::json!({"DatabaseName": "school_canvas", "TableInput": theirs}));
    let names = ["--catalog-database", "school_{namespace}", "--catalog-table", "t_{table}"];
    let run = lake.sync(&glue, &names).assert_code(0);
    let found = warnings(&run);
    assert!(found.len() == 1 && found[0].contains("The catalog has another table of this name"), "{found:?}");
    run.assert_says(&["s3://other/users/", "--catalog-table"]);
    let tables = glue.tables("school_canvas");
    let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["t_courses", "t_users"]);
    assert_eq!(tables[1].1["StorageDescriptor"]["Location"], "s3://other/users/");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_needs_delta_tables_in_its_store() {
    let world = World::new(school(&[canvas("users")])).await;
    let sync = ["sync", "--catalog", "glue", "--jobs-per-minute", "0", "--target"];
    let run = world.daplake(&[&sync[..], &["lake"]].concat()).assert_code(38);
    run.assert_says(&["A catalog can list tables in an object store only", "--catalog"]);
    let store = S3Server::start().await;
    let on_store = |more: &[&str]| {
        let target = store.url("lake");
        let mut command = world.command(&[&sync[..], &[&target], more].concat());
        Run::of(command.envs(store.variables()).output().unwrap())
    };
    on_store(&["--format", "parquet"]).assert_code(38).assert_says(&["A catalog can list Delta tables only"]);
    on_store(&["--catalog-option", "wrong=x"])
        .assert_code(5)
        .assert_says(&["no such option", "region, endpoint and catalog_id"]);
    on_store(&["--catalog-table", "{name}"]).assert_code(5).assert_says(&["{namespace}", "{table}"]);
    std::fs::write(
        world.path("daplake.toml"),
        "[targets.lake]\nurl = \"./lake\"\ncatalog = \"none\"\n\n[catalog]\ntype = \"glue\"\n",
    )
    .unwrap();
    world.daplake(&["sync", "--jobs-per-minute", "0"]).assert_code(0);
}
