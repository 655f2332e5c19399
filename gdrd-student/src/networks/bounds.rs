//! Bounds of students' numbers. The schema has them for recipes; `check` has them for student files, which programs without the
//! feature `train` read too.

/// Most values in a layer's output or an embedding.
pub(crate) const WIDEST: usize = 65_536;
/// Most blocks of a stage.
pub(crate) const MOST_BLOCKS: usize = 1_024;
/// Largest step of a convolution.
pub(crate) const MOST_STRIDE: usize = 64;
/// Largest input of a network, in pixels.
pub(crate) const LARGEST_INPUT: usize = 4_096;

#[cfg(all(test, feature = "train"))]
mod tests {
    use gdrd_core::registry::Registry;
    use gdrd_core::student::StudentKinds;
    use serde_json::{Value as Json, json};

    use crate::BuiltIn;

    /// Good options of the kinds that need some.
    fn base(kind: &str) -> Json {
        let network = json!({ "image_size": 16, "model_channels": 32, "channel_mult": [1] });
        match kind {
            "diffusion-unet" => json!({ "network": network }),
            "diffusion-trunk" => json!({ "network": network, "weights": "x", "encoder_size": 16 }),
            _ => json!({}),
        }
    }

    /// The numbers of a schema: the keys that lead to each, a list's length in the place of a key, and values just outside its bounds.
    fn numbers(root: &Json, schema: &Json, keys: &[String], found: &mut Vec<(Vec<String>, Vec<Json>)>) {
        if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
            numbers(root, root.pointer(&name[1..]).expect("a definition"), keys, found);
        }
        let below = |key: &str| keys.iter().cloned().chain([key.to_string()]).collect::<Vec<_>>();
        for several in ["anyOf", "allOf", "oneOf"] {
            schema[several].as_array().into_iter().flatten().for_each(|one| numbers(root, one, keys, found));
        }
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            numbers(root, schema, &below(key), found);
        }
        if schema.get("items").is_some() {
            let count = schema["minItems"].as_u64().unwrap_or(1);
            numbers(root, &schema["items"], &below(&count.to_string()), found);
        }
        let low = schema["minimum"].as_u64().filter(|low| *low > 0).map(|low| json!(low - 1));
        let high = schema["maximum"].as_u64().map(|high| json!(high + 1));
        let outside: Vec<Json> = low.into_iter().chain(high).collect();
        if !outside.is_empty() {
            found.push((keys.to_vec(), outside));
        }
    }

    fn put(options: &mut Json, keys: &[String], value: &Json) {
        match keys {
            [] => *options = value.clone(),
            [key, rest @ ..] => {
                // A list of so many numbers.
                if let Ok(count) = key.parse() {
                    *options = Json::Array(vec![value.clone(); count]);
                    return;
                }
                if !options.is_object() {
                    *options = json!({});
                }
                put(&mut options[key], rest, value);
            }
        }
    }

    #[test]
    fn student_files_are_held_to_the_bounds_of_recipes() {
        let mut registry = Registry::empty();
        crate::register(&mut registry).expect("kinds");
        let mut tried = 0;
        for kind in registry.kinds().iter().filter(|kind| kind.family == "student") {
            let mut all = Vec::new();
            numbers(kind.schema.as_value(), kind.schema.as_value(), &[], &mut all);
            // The recogniser behind a restored face is one of the other kinds.
            all.retain(|(keys, _)| keys.first().is_none_or(|key| key != "recogniser"));
            assert!(!all.is_empty(), "{}", kind.name);
            for (keys, outside) in &all {
                for value in outside {
                    let mut options = base(kind.name);
                    put(&mut options, keys, value);
                    let config = BuiltIn.config(kind.name, &options).expect("options of the kind");
                    let said: Vec<String> = config.check().into_iter().map(|problem| problem.message).collect();
                    let found = format!("found {value}");
                    assert!(
                        said.iter().any(|said| said.contains(&found)),
                        "{} {keys:?} = {value}: {said:?}",
                        kind.name
                    );
                    tried += 1;
                }
            }
        }
        assert!(tried > 30, "{tried}");
    }
}
