//! gdrd.
