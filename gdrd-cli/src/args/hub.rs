//! Arguments of `hub`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RecipeArguments;

#[derive(Subcommand)]
pub(crate) enum HubCommand {
    /// Fetch every file on the Hub that a recipe names into the Hub's cache
    Pull {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Ask where branches and tags stand now, though the cache knows where they stood
        #[arg(long)]
        refresh: bool,
        /// Fetch the files of a run's lock.json, and refuse others
        #[arg(long, value_name = "FILE", conflicts_with = "refresh")]
        lock: Option<PathBuf>,
    },
    /// Check, without network, that every file on the Hub that a recipe names is in the cache and undamaged
    Verify {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Check that they are the files of a run's lock.json
        #[arg(long, value_name = "FILE")]
        lock: Option<PathBuf>,
    },
    /// Put a finished run into a model repository: model card, student, ONNX model, recipe, lock
    ///
    /// What is sent, and the licences of what the student comes from, are said before. The token is that of HF_TOKEN or of the Hub's
    /// own `hf auth login`.
    Push(PushArguments),
    /// List public weights: address, size, licence, terms, what they are for
    List,
}

#[derive(Args)]
pub(crate) struct PushArguments {
    /// Folder of the run
    pub(crate) run: PathBuf,
    /// The repository; it is made if it is not there
    #[arg(long, value_name = "OWNER/NAME", required_unless_present_any = ["out", "dry_run"])]
    pub(crate) to: Option<String>,
    /// Let everybody read the repository; without it a new one is private, and nothing is put into a public one
    #[arg(long)]
    pub(crate) public: bool,
    /// The student's licence, as the Hub calls it: `mit`, `apache-2.0`, `cc-by-nc-4.0`, `other` ...
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    pub(crate) licence: String,
    /// The commit's message
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Write the repository's files into this folder too
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
