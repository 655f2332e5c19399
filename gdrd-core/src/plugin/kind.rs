//! What every plug-in's config has.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The config of a plug-in: what a user writes in a recipe's table beside `kind = "NAME"`.
///
/// It is a struct with named fields (`struct Flip {}` when there are no options); fields that may
/// be left out have `#[serde(default)]`.
///
/// ```
/// use gdrd_core::plugin::Kind;
///
/// /// Mean squared difference of embeddings.
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct Squares {
///     /// Factor of the loss.
///     #[serde(default)]
///     weight: f64,
/// }
///
/// impl Kind for Squares {
///     const NAME: &'static str = "squares";
///     const PURPOSE: &'static str = "mean squared difference of embeddings";
/// }
/// ```
pub trait Kind: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The name that recipes use, in kebab-case.
    const NAME: &'static str;
    /// One line for listings: lower case, no final period.
    const PURPOSE: &'static str;
}
