# Short names for common commands. Everything works without `just`, too: see CONTRIBUTING.md.

_default:
    @just --list

# Run the tests; a filter selects some: just test cli
test *FILTER:
    tests/run {{ if FILTER == "" { "" } else { "-- " + FILTER } }}

# Formatting and lints, as CI runs them
lint:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- --deny warnings

# Benchmarks: just bench compare | increment | read-after | database | memory | download | cluster | guard
bench NAME *ARGS:
    python3 benches/run.py {{ NAME }} {{ ARGS }}

# Two machines sync one lake in an object store for ten minutes: no failure, no lost row, no duplicate
overlap SECONDS="600":
    DAPLAKE_TEST_SECONDS={{ SECONDS }} tests/run --test it -- --nocapture two_machines_keep_delta_tables

# Package the development build, and try every package
package:
    packaging/lint
    packaging/check

# Build the documentation, and check the samples, links and language of the pages
docs:
    cargo doc --locked --no-deps
    cargo test --locked --test it -- docs::

# A made-up school, without account and network
demo *ARGS:
    cargo run --locked -- demo {{ ARGS }}
