//! A way through options beside their schema.

use serde_json::Value as Json;

/// Calls `visit` for every value among `value` with each schema that holds for it, and the keys that lead there.
pub(super) fn walk(schema: &Json, value: &Json, visit: &mut dyn FnMut(&Json, &Json, &[String])) {
    Walk { root: schema, at: Vec::new(), visit }.go(schema, value);
}

struct Walk<'a> {
    root: &'a Json,
    at: Vec<String>,
    visit: &'a mut dyn FnMut(&Json, &Json, &[String]),
}

impl Walk<'_> {
    fn go(&mut self, schema: &Json, value: &Json) {
        if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|name| name.strip_prefix('#'))
            && let Some(definition) = self.root.pointer(name)
        {
            self.go(definition, value);
        }
        (self.visit)(schema, value, &self.at);
        for several in ["anyOf", "oneOf", "allOf"] {
            for one in schema.get(several).and_then(Json::as_array).into_iter().flatten() {
                self.go(one, value);
            }
        }
        match value {
            Json::Object(table) => {
                for (key, value) in table {
                    let own = schema.get("properties").and_then(|properties| properties.get(key));
                    self.below(key.clone(), own.or_else(|| schema.get("additionalProperties")), value);
                }
            }
            Json::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.below(index.to_string(), schema.get("items"), value);
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, key: String, schema: Option<&Json>, value: &Json) {
        if let Some(schema) = schema {
            self.at.push(key);
            self.go(schema, value);
            self.at.pop();
        }
    }
}
