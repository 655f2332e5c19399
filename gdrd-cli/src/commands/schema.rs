//! `schema`.

use gdrd_core::error::{Error, Result};
use gdrd_core::experiment::schema as recipe_schema;
use gdrd_core::registry::Registry;

pub(crate) fn schema(registry: &Registry) -> Result<()> {
    let text = serde_json::to_string_pretty(&recipe_schema(registry)).map_err(|e| Error::data(e.to_string()))?;
    say!("{text}");
    Ok(())
}
