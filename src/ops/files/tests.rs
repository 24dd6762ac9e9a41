//! The verbs against the embedded server.
