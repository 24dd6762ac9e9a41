//! Reads the service's JSON Schema.
