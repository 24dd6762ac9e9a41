//! The dialect by snapshots and by other parsers, the session against a scripted peer, the contract against a server.
