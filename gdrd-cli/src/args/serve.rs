//! Arguments of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Finding;

#[derive(Args)]
pub(crate) struct ServeArguments {
    /// The database, an SQLite file; a new one is made, and the key of its first collection is printed
    pub(crate) database: PathBuf,
    /// Student file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["new_key", "revoke_keys", "forget_backup"])]
    pub(crate) student: Option<PathBuf>,
    /// Address and port to listen on; 0.0.0.0:8000 is every network of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) finding: Finding,
    /// Make a key for a collection of people, which is made if need be, print it, and end
    #[arg(long, value_name = "COLLECTION", conflicts_with = "revoke_keys")]
    pub(crate) new_key: Option<String>,
    /// Make all keys of a collection invalid, and end; its people stay
    #[arg(long, value_name = "COLLECTION")]
    pub(crate) revoke_keys: Option<String>,
    /// Forget the backups in a folder that is gone for good, and end: nobody is deleted from them any longer
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["new_key", "revoke_keys"])]
    pub(crate) forget_backup: Option<PathBuf>,
    /// Keep embeddings alone, and no images
    #[arg(long)]
    pub(crate) no_images: bool,
    /// Embed all images of the database again, because it was made with another student; of the same student, those whose embedding is
    /// damaged
    #[arg(long)]
    pub(crate) reembed: bool,
    /// Write backups of the database into this folder; who is deleted is deleted from them too
    #[arg(long, value_name = "DIR")]
    pub(crate) backups: Option<PathBuf>,
    /// Hours between two backups
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    pub(crate) backup_every: u64,
    /// Backups that are kept; older ones are removed
    #[arg(long, value_name = "COUNT", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) backup_keep: u64,
    /// Certificate chain for TLS, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Private key for TLS, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Megabytes of a request's body at most
    #[arg(long, value_name = "MEGABYTES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) max_body: u64,
    /// Megapixels of an image at most
    #[arg(long, value_name = "MEGAPIXELS", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) max_pixels: u64,
    /// Requests that are worked on at once; others are told to come again
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) max_requests: u64,
    /// Connections that are open at once; others wait
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub(crate) max_connections: u64,
    /// Seconds in which a request must have come in, and after which a silent connection is closed
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}
