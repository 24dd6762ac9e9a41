//! The Rust side of the benchmarks, as one program so that the large dependencies are linked once. Without arguments it measures the parts
//! of the data path in one process; with arguments it runs one step for `benches/run.py`.
//!
//! ```text
//! cargo bench                                  # 200,000 rows of submissions, 1,000,000 of web_logs
//! DAPLAKE_BENCH_ROWS=1000000 cargo bench
//! ```

#![allow(clippy::print_stdout, reason = "the output is the result")]

mod parts;
mod steps;

use daplake::Result;

fn main() -> Result<()> {
    // Cargo passes `--bench` to every bench.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(Box::pin(async {
        match arguments[..] {
            [] => parts::measure_all().await,
            _ => steps::run(&arguments).await,
        }
    }))
}
