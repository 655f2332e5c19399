//! What the tests share: tiny recipes whose teachers are trained in a second, and the `gdrd` command as a process.
