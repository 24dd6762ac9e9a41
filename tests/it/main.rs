//! Behaviour tests through the front door. One binary, one module per theme.
