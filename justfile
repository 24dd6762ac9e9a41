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

# Lint each set of features alone. This builds most dependencies again, so it has a folder of its own and is not part of CI
lint-features:
    #!/usr/bin/env bash
    set -euo pipefail
    for features in "" demo lake postgres mysql mssql; do
        echo "features: $features"
        cargo clippy --locked --no-default-features --features "$features" --target-dir target/features -- --deny warnings
    done

# Benchmarks: just bench compare | increment | read-after | database | memory | download | cluster | guard
bench NAME *ARGS:
    python3 benches/run.py {{ NAME }} {{ ARGS }}

# Test two machines that sync one lake in an object store for ten minutes
overlap SECONDS="600":
    DAPLAKE_TEST_SECONDS={{ SECONDS }} tests/run --test it -- --nocapture two_machines_keep_delta_tables

# Package the development build and try every package
package:
    packaging/lint
    packaging/check

# Build the Rust documentation; check samples, links and language of the pages
docs:
    cargo doc --locked --no-deps
    cargo test --locked --test it -- docs::

# Build the pages as a site, in target/book
book:
    mdbook build

# Run the demo: generated data, without account and network
demo *ARGS:
    cargo run --locked -- demo {{ ARGS }}
