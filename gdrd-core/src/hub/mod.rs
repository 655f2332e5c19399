//! Files on the Hugging Face Hub: their addresses, and with the feature `hub` the client that has them.
//!
//! Files are found in the cache that all of the Hub's clients share, or downloaded, and verified. Names and places in the cache come
//! from `hf-hub` 0.5 without its features; the client is ours, over `ureq` (27 crates), and stays inside this module. `hf-hub`'s own
//! (66 crates, on the same `ureq`) verifies no checksum, locks where the Python client does not look, knows neither offline runs nor
//! `Retry-After` nor proxies by scheme, and loses the header in which the Hub says whether the repository, the revision or the file
//! is missing. `hf-hub` 1.0 brings 297 crates.

mod address;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod http;
#[cfg(feature = "hub")]
mod part;
#[cfg(feature = "hub")]
mod push;
#[cfg(feature = "hub")]
mod settings;
#[cfg(feature = "hub")]
mod url;

pub use address::{DEFAULT_REVISION, Fetch, HUB_SCHEME, HubAddress, HubFile, LockedFile, RepositoryType};
#[cfg(feature = "hub")]
pub use client::Hub;
#[cfg(feature = "hub")]
pub use push::{Push, Pushed};
#[cfg(feature = "hub")]
pub use settings::{Proxies, Settings, Token};
#[cfg(feature = "hub")]
pub use url::Url;
