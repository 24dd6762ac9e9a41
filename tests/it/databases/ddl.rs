//! `schema --ddl` and `schema --dbt`: the output is run by its engine, where that is available.

use std::process::{Command, Stdio};

use crate::support::postgres::Database;
use crate::support::{World, canvas, school};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_for_duckdb_read_the_files_and_carry_descriptions() {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let world = World::new(school(&[canvas("users"), canvas("courses")])).await;
    parquet_tables(&world);
    let arguments =
        ["schema", "--namespace", "canvas", "--table", "users,courses", "--ddl", "duckdb", "--table-format", "parquet"];
    let target = world.path("lake");
    let printed = world.daplake(&[&arguments[..], &["--target", target.to_str().unwrap()]].concat()).assert_code(0).stdout;
    std::fs::write(world.path("views.sql"), &printed).unwrap();
    let script = "import duckdb, sys\nc = duckdb.connect()\nc.execute(open(sys.argv[1]).read())\n\
         print(c.execute('SELECT count(*), count(DISTINCT id) FROM canvas.users').fetchone())\n\
         print(c.execute(\"SELECT count(*) FROM duckdb_columns() WHERE schema_name = 'canvas' AND comment IS NOT NULL\").fetchone()[0])";
    let output = Command::new(python).args(["-c", script]).arg(world.path("views.sql")).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}\n{printed}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let (rows, comments) = printed.trim().split_once('\n').unwrap();
    let users = world.school.expected(&canvas("users"), world.school.now()).unwrap().len();
    assert_eq!(rows, format!("({users}, {users})"));
    let described = |name: &str| {
        let table = canvas(name);
        let version = world.school.schema_version(&table, world.school.now()).unwrap();
        let schema = world.school.schema(&table, version).unwrap();
        let groups = ["key", "value"].map(|group| schema["properties"][group]["properties"].as_object().unwrap().clone());
        groups.iter().flat_map(|group| group.values()).filter(|node| node.get("description").is_some()).count()
    };
    let expected = described("users") + described("courses");
    assert!(expected > 5);
    assert_eq!(comments.trim(), expected.to_string(), "columns have their descriptions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_for_postgresql_can_be_created() {
    let Some(database) = Database::new() else { return };
    let (printed, tables) = all_for("postgresql").await;
    database.psql(&printed);
    assert_eq!(
        database.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'canvas' AND tablename NOT LIKE '%\\_\\_%'").trim(),
        tables.to_string()
    );
}

/// Puts `users` and `courses` as folders of Parquet files into the lake of `world`.
fn parquet_tables(world: &World) {
    // Converted files serve as a folder of plain Parquet tables.
    for table in ["users", "courses"] {
        let arguments =
            ["snapshot", "--namespace", "canvas", "--table", table, "--convert", "parquet", "--output-directory", table];
        world.daplake(&arguments).assert_code(0);
        let job = std::fs::read_dir(world.path(table)).unwrap().next().unwrap().unwrap().path();
        std::fs::create_dir_all(world.path("lake/canvas")).unwrap();
        std::fs::rename(job, world.path("lake/canvas").join(table)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_for_dbt_name_files_keys_and_relations() {
    let Ok(python) = std::env::var("DAPLAKE_TEST_PYTHON") else {
        eprintln!("not run: needs DAPLAKE_TEST_PYTHON");
        return;
    };
    let world = World::new(school(&[canvas("users"), canvas("courses")])).await;
    parquet_tables(&world);
    let arguments =
        ["schema", "--namespace", "all", "--table", "users,courses", "--table-format", "parquet", "--target", "lake"];
    let printed = world.daplake(&[&arguments[..], &["--dbt", "duckdb"]].concat()).assert_code(0).stdout;
    std::fs::write(world.path("sources.yml"), &printed).unwrap();
    let script = "import duckdb, sys, yaml\n\
        source, = yaml.safe_load(open(sys.argv[1]))['sources']\n\
        location = source['config']['meta']['external_location']\n\
        for table in source['tables']:\n\
        \x20   read = duckdb.sql('SELECT * FROM ' + location.format(name=table['name']))\n\
        \x20   assert set(read.columns) >= set(column['name'] for column in table['columns'])\n\
        \x20   assert table['config']['meta']['primary_key'] == ['id'] and table['columns'][0]['data_tests'] == ['not_null', 'unique']\n\
        \x20   assert table['config']['loaded_at_query'].endswith(table['name'] + '/_daplake.json\\')')\n\
        \x20   assert any(column.get('description') for column in table['columns'])\n\
        \x20   print(source['name'], table['name'], read.count('*').fetchall()[0][0])";
    let output =
        Command::new(python).args(["-c", script]).arg(world.path("sources.yml")).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}\n{printed}", String::from_utf8_lossy(&output.stderr));
    let rows = |name: &str| world.school.expected(&canvas(name), world.school.now()).unwrap().len();
    let expected = format!("canvas courses {}\ncanvas users {}\n", rows("courses"), rows("users"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let refused = world.daplake(&["schema", "--namespace", "canvas", "--table", "users", "--dbt", "duckdb"]);
    let refused = refused.assert_code(5).assert_says(&["--dbt duckdb needs the location of the tables", "--target"]);
    assert_eq!(refused.stdout, "", "a failure is not part of the document");
}

/// The statements for all tables of a namespace, and how many tables there are.
async fn all_for(engine: &str) -> (String, usize) {
    let world = World::new(school(&[])).await;
    let arguments = ["schema", "--namespace", "canvas", "--table", "all", "--ddl", engine];
    let tables = world.all_tables().into_iter().filter(|table| table.namespace.as_str() == "canvas").count();
    (world.daplake(&arguments).assert_code(0).stdout, tables)
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_for_mysql_can_be_created() {
    use crate::support::mysql::{Brand, Database};
    let (printed, tables) = all_for("mysql").await;
    let made = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE '%!_!_%!_!_%' ESCAPE '!'";
    for brand in [Brand::Mariadb, Brand::Mysql] {
        let Some(database) = Database::new(brand) else { continue };
        database.sql(&printed);
        assert_eq!(database.sql(made).trim(), tables.to_string(), "{brand:?}");
    }
}

/// There is no server to run them; an independent parser reads them.
#[cfg(all(feature = "mssql", feature = "lake"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_for_sql_server_are_parsed_as_t_sql() {
    use datafusion::sql::sqlparser::ast::Statement;
    let (printed, tables) = all_for("mssql").await;
    let dialect = datafusion::sql::sqlparser::dialect::MsSqlDialect {};
    let made: Vec<String> = datafusion::sql::sqlparser::parser::Parser::parse_sql(&dialect, &printed)
        .unwrap_or_else(|error| panic!("{error}"))
        .into_iter()
        .filter_map(|statement| match statement {
            Statement::CreateTable(table) => Some(table.name.to_string()),
            _ => None,
        })
        .filter(|name| !name.contains("__"))
        .collect();
    assert_eq!(made.len(), tables, "{made:?}");
    assert!(made.contains(&"[canvas].[courses]".to_owned()), "{made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_engines_get_their_types_and_quotes() {
    let world = World::new(school(&[canvas("courses")])).await;
    let ddl = |more: &[&str]| {
        let base = ["schema", "--namespace", "canvas", "--table", "courses", "--target", "s3://bucket/lake/", "--ddl"];
        world.daplake(&[&base[..], more].concat()).assert_code(0).stdout
    };
    for (arguments, words) in [
        (&["athena"][..], &["LOCATION 's3://bucket/lake/canvas/courses/'", "'table_type' = 'DELTA'"][..]),
        (
            &["athena", "--table-format", "parquet"],
            &["`account_id` bigint COMMENT '", "STORED AS PARQUET", "`start_at` timestamp"],
        ),
        (&["spark"], &["`canvas`.`courses` USING DELTA LOCATION 's3://bucket/lake/canvas/courses/'"]),
        (&["spark", "--table-format", "parquet"], &["USING PARQUET", "COMMENT '"]),
        (&["snowflake"], &["TABLE_FORMAT = DELTA", "\"ID\" NUMBER(38,0) AS (VALUE:\"id\"::NUMBER(38,0))", "REFRESH;"]),
        (
            &["duckdb"],
            &["delta_scan('s3://bucket/lake/canvas/courses')", "COMMENT ON COLUMN \"canvas\".\"courses\".\"account_id\" IS '"],
        ),
    ] {
        let printed = ddl(arguments);
        for word in words {
            assert!(printed.contains(word), "{arguments:?} says {word}:\n{printed}");
        }
    }
    let refused = world.daplake(&["schema", "--namespace", "canvas", "--table", "courses", "--ddl", "spark"]);
    refused.assert_code(5).assert_says(&["--target"]);
}
