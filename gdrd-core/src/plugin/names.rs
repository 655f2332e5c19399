//! Names of the recipe's own tables among a kind's options. The schema marks them, so that `gdrd check` finds a name that leads
//! nowhere before anything is built.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// How schemas mark such a name.
            pub const FORMAT: &'static str = $format;
        }

        impl<T: Into<String>> From<T> for $name {
            fn from(name: T) -> Self {
                Self(name.into())
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

name!(
    /// The name of a dataset, a table `[data.NAME]`.
    DatasetName,
    "dataset"
);
name!(
    /// The name of a teacher, a table `[teacher.NAME]`.
    TeacherName,
    "teacher"
);
name!(
    /// The name of a view: `high`, `low`, or a table `[view.NAME]`.
    ViewName,
    "view"
);
