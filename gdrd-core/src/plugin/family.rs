//! The plug-ins of one contract, such as all teachers.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;

use schemars::Schema;

use super::bounds::out_of_bounds_json;
use super::kind::Kind;
use super::paths::{Marked, listed, resolve, with_revision};
use crate::error::{Error, Result};
use crate::recipe::diagnostic::{Diagnostic, list, suggest};
use crate::recipe::node::Table;
use crate::recipe::read::read;
use crate::recipe::source::{Sources, Span};

/// A config that can be put behind the trait object `D` of its family.
///
/// Each contract has one blanket implementation beside its trait, so that plug-ins do not write it:
///
/// ```text
/// impl<T: TeacherConfig> Boxed<dyn TeacherConfig> for T {
///     fn boxed(self) -> Box<dyn TeacherConfig> {
///         Box::new(self)
///     }
/// }
/// ```
pub trait Boxed<D: ?Sized> {
    /// The config behind its trait.
    fn boxed(self) -> Box<D>;
}

/// The kinds of one contract by name. `D` is the trait object of its configs.
pub struct Family<D: ?Sized> {
    what: &'static str,
    kinds: BTreeMap<&'static str, Registered<D>>,
}

struct Registered<D: ?Sized> {
    purpose: &'static str,
    type_name: &'static str,
    read: Read<D>,
    from_json: fn(&serde_json::Value) -> serde_json::Result<Box<D>>,
    schema: fn() -> Schema,
}

type Read<D> = fn(&Table) -> std::result::Result<(Box<D>, toml::Table), Vec<Diagnostic>>;

/// A table of a recipe as the config that its `kind` names.
pub struct Component<D: ?Sized> {
    /// The name of the kind.
    pub kind: String,
    /// The config.
    pub config: Box<D>,
    /// The table with `kind` and every default written out; paths are absolute.
    pub resolved: toml::Table,
    /// The paths and the names of other tables among the options.
    pub marked: Vec<Marked>,
    /// The table's header.
    pub span: Span,
    written: Table,
}

impl<D: ?Sized> Component<D> {
    /// Where the value of the option `key` stands; the table's header if it is a default.
    pub fn place_of(&self, key: &str) -> Span {
        self.written.get(key).map_or(self.span, |node| node.span)
    }
}

impl<D: ?Sized> fmt::Debug for Component<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("kind", &self.kind).field("resolved", &self.resolved).finish_non_exhaustive()
    }
}

impl<D: ?Sized> Family<D> {
    /// A family without kinds; `what` is its word in messages, such as `teacher`.
    pub fn new(what: &'static str) -> Self {
        Self { what, kinds: BTreeMap::new() }
    }

    /// The family's word in messages.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Adds the kind `T`.
    ///
    /// # Errors
    /// If there is a kind of that name.
    pub fn register<T: Kind + Boxed<D>>(&mut self) -> Result<()> {
        if let Some(there) = self.kinds.get(T::NAME) {
            return Err(Error::component(format!(
                "two kinds of {} are called `{}`: `{}` and `{}`; `replace` puts one in the other's place",
                self.what,
                T::NAME,
                there.type_name,
                type_name::<T>()
            )));
        }
        self.kinds.insert(T::NAME, registered::<T, D>());
        Ok(())
    }

    /// Puts the kind `T` in the place of the kind that has its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn replace<T: Kind + Boxed<D>>(&mut self) -> Result<()> {
        match self.kinds.get_mut(T::NAME) {
            Some(there) => {
                *there = registered::<T, D>();
                Ok(())
            }
            None => Err(Error::component(format!(
                "no {} is called `{}`, so `{}` cannot replace it; {}",
                self.what,
                T::NAME,
                type_name::<T>(),
                list(self.names())
            ))),
        }
    }

    /// Names and purposes of all kinds, in the order of the names.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.kinds.iter().map(|(name, kind)| (*name, kind.purpose))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.kinds.keys().copied()
    }

    /// The JSON schema of the kind `name`, without the key `kind`.
    pub fn schema(&self, name: &str) -> Option<Schema> {
        self.kinds.get(name).map(|kind| (kind.schema)())
    }

    /// The config that `table` describes: of the kind that its key `kind` names, with the rest of
    /// the keys as options.
    ///
    /// # Errors
    /// If the kind is missing or unknown; otherwise all problems of the options.
    pub fn resolve(&self, table: &Table, sources: &Sources) -> std::result::Result<Component<D>, Vec<Diagnostic>> {
        let mut options = table.clone();
        let Some(kind) = options.take("kind") else {
            let problem = Diagnostic::new(format!("missing field `kind`, the name of a {}", self.what), table.span);
            return Err(vec![problem.with_hint(list(self.names()))]);
        };
        let Some(name) = kind.as_str() else {
            let message = format!("expected the name of a {}, found {}", self.what, kind.describe());
            return Err(vec![Diagnostic::new(message, kind.span).with_hint(list(self.names()))]);
        };
        let Some(registered) = self.kinds.get(name) else {
            let problem = Diagnostic::new(format!("no {} is called `{name}`", self.what), kind.span);
            return Err(vec![problem.with_hint(suggest(name, self.names()))]);
        };
        let schema = (registered.schema)();
        let mut problems = resolve(&mut options, &schema, sources).err().unwrap_or_default();
        match (registered.read)(&options) {
            Ok((config, options)) if problems.is_empty() => {
                let marked = listed(&options, &schema);
                let mut resolved = toml::Table::new();
                resolved.insert("kind".to_string(), toml::Value::String(name.to_string()));
                resolved.extend(options);
                let kind = name.to_string();
                Ok(Component { kind, config, resolved, marked, span: table.span, written: table.clone() })
            }
            Ok(_) => Err(problems),
            Err(others) => {
                problems.extend(others);
                Err(problems)
            }
        }
    }

    /// The config of the kind `name` with these options, as a file keeps them.
    ///
    /// # Errors
    /// If there is no such kind, the options are not its, or a number is out of its bounds.
    pub fn from_json(&self, name: &str, options: &serde_json::Value) -> Result<Box<D>> {
        let Some(registered) = self.kinds.get(name) else {
            return Err(Error::component(format!(
                "no {} is called `{name}`; {}. A program that registers the kind can open it",
                self.what,
                list(self.names())
            )));
        };
        let wrong = |text: String| Error::component(format!("options of the {} `{name}`: {text}", self.what));
        if let Some(outside) = out_of_bounds_json(&(registered.schema)(), options).into_iter().next() {
            return Err(wrong(format!("`{}`: {}", outside.key(), outside.message)));
        }
        (registered.from_json)(options).map_err(|error| wrong(error.to_string()))
    }
}

fn registered<T: Kind + Boxed<D>, D: ?Sized>() -> Registered<D> {
    Registered {
        purpose: T::PURPOSE,
        type_name: type_name::<T>(),
        read: read_kind::<T, D>,
        from_json: |options| serde::Deserialize::deserialize(options).map(|config: T| config.boxed()),
        schema: || with_revision(schemars::schema_for!(T)),
    }
}

fn read_kind<T: Kind + Boxed<D>, D: ?Sized>(
    table: &Table,
) -> std::result::Result<(Box<D>, toml::Table), Vec<Diagnostic>> {
    let config: T = read(table)?;
    let resolved = toml::Table::try_from(&config)
        .map_err(|error| vec![Diagnostic::new(format!("`{}` cannot be written out: {error}", T::NAME), table.span)])?;
    Ok((config.boxed(), resolved))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::recipe::{Failure, RecipePath, node};

    trait TeacherConfig: Send + Sync + 'static {
        fn depth(&self) -> u32;
    }

    impl<T: TeacherConfig> Boxed<dyn TeacherConfig> for T {
        fn boxed(self) -> Box<dyn TeacherConfig> {
            Box::new(self)
        }
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Iresnet {
        path: RecipePath,
        #[serde(default = "fifty")]
        depth: u32,
        width: Option<f64>,
    }

    fn fifty() -> u32 {
        50
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Mine {}

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Other {}

    impl Kind for Iresnet {
        const NAME: &'static str = "iresnet";
        const PURPOSE: &'static str = "an ArcFace network";
    }

    impl Kind for Mine {
        const NAME: &'static str = "mine";
        const PURPOSE: &'static str = "a test";
    }

    impl Kind for Other {
        const NAME: &'static str = "mine";
        const PURPOSE: &'static str = "another test";
    }

    impl TeacherConfig for Iresnet {
        fn depth(&self) -> u32 {
            self.depth
        }
    }

    impl TeacherConfig for Mine {
        fn depth(&self) -> u32 {
            1
        }
    }

    impl TeacherConfig for Other {
        fn depth(&self) -> u32 {
            2
        }
    }

    fn family() -> Family<dyn TeacherConfig> {
        let mut family = Family::new("teacher");
        family.register::<Mine>().expect("new");
        family.register::<Iresnet>().expect("new");
        family
    }

    fn resolve(
        family: &Family<dyn TeacherConfig>,
        text: &str,
    ) -> std::result::Result<Component<dyn TeacherConfig>, String> {
        let mut sources = Sources::default();
        let start = sources.add_file(Path::new("/r/a.toml"), text.to_string());
        let mut recipe = node::parse(text, start).expect("good TOML");
        let table = recipe.take("teacher").expect("a teacher").into_table().expect("a table");
        family.resolve(&table, &sources).map_err(|problems| Failure::new(sources, problems).to_string())
    }

    #[test]
    fn a_table_becomes_its_kind_with_all_defaults() {
        let teacher = resolve(&family(), "[teacher]\nkind = \"iresnet\"\npath = \"w\"\n").expect("a teacher");
        assert_eq!((teacher.kind.as_str(), teacher.config.depth()), ("iresnet", 50));
        assert_eq!(teacher.span, Span::new(0, 9));
        assert_eq!(teacher.place_of("path"), Span::new(34, 37));
        assert_eq!(teacher.place_of("depth"), teacher.span);
        assert_eq!(teacher.resolved.to_string(), "depth = 50\nkind = \"iresnet\"\npath = \"/r/w\"\n");
        assert_eq!(resolve(&family(), "teacher.kind = \"mine\"").expect("a teacher").config.depth(), 1);
    }

    #[test]
    fn a_revision_is_written_into_the_addresses_of_its_table() {
        let of = |text: &str| resolve(&family(), &format!("[teacher]\n{text}\n"));
        let teacher = of("kind = \"iresnet\"\npath = \"hf://o/n/w.pth\"\nrevision = \"refs/pr/2\"").expect("a teacher");
        assert_eq!(teacher.resolved["path"].as_str(), Some("hf://o/n@refs%2Fpr%2F2/w.pth"));
        let local = of("kind = \"iresnet\"\npath = \"w\"\nrevision = \"v2\"").expect("a revision of no address");
        assert_eq!(local.resolved["path"].as_str(), Some("/r/w"));
        let both = of("kind = \"iresnet\"\npath = \"hf://o/n@v1/w\"\nrevision = \"v2\"").expect_err("two");
        assert!(both.starts_with("error: `revision` says `v2`, the address says `v1`"), "{both}");
        assert!(both.contains("/r/a.toml:3:8"), "{both}");
        let wrong = of("kind = \"iresnet\"\npath = \"hf://o/n/w\"\nrevision = 2").expect_err("a number");
        assert!(wrong.starts_with("error: expected a branch, a tag or a commit, found 2"), "{wrong}");
        let pathless = of("kind = \"mine\"\nrevision = \"v2\"").expect_err("no path");
        assert!(pathless.starts_with("error: unknown field `revision`"), "{pathless}");
        let address = of("kind = \"iresnet\"\npath = \"hf://o/n\"").expect_err("no file");
        assert!(
            address.starts_with("error: `hf://o/n`: no file; expected hf://") && address.contains(":3:8"),
            "{address}"
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_is_placed_among_the_other_problems() {
        let text = "[teacher]\nkind = \"iresnet\"\npath = \"${GDRD_NEVER_SET}/x\"\ndepth = \"deep\"\n";
        let problems = resolve(&family(), text).expect_err("not set");
        let expected = "error: the environment variable `GDRD_NEVER_SET` is not set\n --> /r/a.toml:3:8\n  \
            | path = \"${GDRD_NEVER_SET}/x\"\n  |        ^^^^^^^^^^^^^^^^^^^^^";
        assert!(problems.contains(expected) && problems.contains("expected a whole number"), "{problems}");
        let teacher = resolve(&family(), "[teacher]\nkind = \"iresnet\"\npath = \"w\"\n").expect("a teacher");
        let marked = Marked { format: "path", key: "path".into(), written: "/r/w".into() };
        assert_eq!(teacher.marked, [marked]);
    }

    #[test]
    fn an_unknown_kind_shows_the_known_ones() {
        let problem = resolve(&family(), "[teacher]\nkind = \"irsnet\"\ndepht = 1\n").expect_err("unknown");
        let expected = "error: no teacher is called `irsnet`\n --> /r/a.toml:2:8\n  | kind = \"irsnet\"\n  |        ^^^^^^^^\n  \
            = did you mean `iresnet`?\n  = known: iresnet, mine";
        assert_eq!(problem, expected);
        let problem = resolve(&family(), "[teacher]\ndepth = 1\n").expect_err("no kind");
        let expected = "error: missing field `kind`, the name of a teacher\n --> /r/a.toml:1:1\n  | [teacher]\n  | ^^^^^^^^^\n  \
            = known: iresnet, mine";
        assert_eq!(problem, expected);
        let problem = resolve(&family(), "[teacher]\nkind = 1\n").expect_err("a number");
        assert!(problem.starts_with("error: expected the name of a teacher, found 1\n"), "{problem}");
    }

    #[test]
    fn options_show_all_their_problems() {
        let problem =
            resolve(&family(), "[teacher]\nkind = \"iresnet\"\ndepth = \"deep\"\nwidht = 2\n").expect_err("bad");
        let expected = "error: missing field `path`\n --> /r/a.toml:1:1\n  | [teacher]\n  | ^^^^^^^^^\n\
            error: expected a whole number, found \"deep\"\n --> /r/a.toml:3:9\n  | depth = \"deep\"\n  |         ^^^^^^\n\
            error: unknown field `widht`\n --> /r/a.toml:4:1\n  | widht = 2\n  | ^^^^^\n  \
            = did you mean `width`?\n  = known: path, depth, width";
        assert_eq!(problem, expected);
    }

    #[test]
    fn duplicates_are_refused_and_replacing_is_explicit() {
        let mut family = family();
        let error = family.register::<Other>().expect_err("a duplicate").to_string();
        let here = module_path!();
        assert!(error.starts_with("two kinds of teacher are called `mine`: "), "{error}");
        assert!(error.contains(&format!("`{here}::Mine` and `{here}::Other`")), "{error}");
        family.replace::<Other>().expect("there is one");
        assert_eq!(resolve(&family, "teacher.kind = \"mine\"").expect("a teacher").config.depth(), 2);
        let mut empty: Family<dyn TeacherConfig> = Family::new("teacher");
        assert!(empty.replace::<Mine>().is_err());
    }

    #[test]
    fn listings_are_sorted_and_have_schemas() {
        let family = family();
        assert_eq!(family.list().collect::<Vec<_>>(), [("iresnet", "an ArcFace network"), ("mine", "a test")]);
        let schema = family.schema("iresnet").expect("a schema").to_value();
        assert_eq!(schema["properties"]["path"]["type"], "string", "{schema}");
        assert!(family.schema("none").is_none());
    }
}
