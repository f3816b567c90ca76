//! The file as a tree that knows where everything stands.
//!
//! Reading straight into types would stop at the first mistake and forget the places. So the YAML is
//! read into this tree first; whatever is found wrong later, by the schema or by the rules, is looked
//! up here by its JSON pointer. Deliberately absent: comments and the style of scalars.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use std::fmt;

/// Things of a file (keys, values, lists) at most, those that aliases repeat included.
pub(super) const NODES_MAX: usize = 30_000;

/// A place in the file, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character on the line.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map, as often as it was written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Place,
    pub(super) key: String,
    pub(super) value: Node,
}

/// Reads YAML.
///
/// # Errors
/// What is no YAML, and the first place where that shows, when there is one.
pub(super) fn parse(text: &str) -> Result<Node, (Option<Place>, String)> {
    parse_bounded(text, NODES_MAX)
}

/// As [`parse`], with so many things at most.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_bounded(text: &str, nodes_max: usize) -> Result<Node, (Option<Place>, String)> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Merge,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 2 * nodes_max,
            max_nodes: nodes_max,
            max_depth: 64,
        },
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Kind>>(text, options);
    read.map(Node::from).map_err(|fault| {
        let at = fault.location().map(place);
        // The place is told apart; the first line says what.
        let said = fault.without_snippet().to_string();
        let said = said.lines().next().unwrap_or_default();
        let said = said.split(" at line ").next().unwrap_or_default();
        (at, said.to_owned())
    })
}

fn place(location: serde_saphyr::Location) -> Place {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Place {
        line: whole(location.line()),
        column: whole(location.column()),
    }
}

impl From<Spanned<Kind>> for Node {
    fn from(spanned: Spanned<Kind>) -> Self {
        Self {
            at: place(spanned.referenced),
            kind: spanned.value,
        }
    }
}

impl Node {
    /// As JSON; of a key that is there twice, the first.
    pub(super) fn value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(truth) => Value::Bool(*truth),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::value).collect()),
            Kind::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    map.entry(&entry.key).or_insert_with(|| entry.value.value());
                }
                Value::Object(map)
            }
        }
    }

    /// The entry of a map, the first of its key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The keys of a map.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries: &[Entry] = match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        };
        entries.iter().map(|entry| entry.key.as_str())
    }

    /// What a JSON pointer leads to; what is on the way there when it leads nowhere.
    pub(super) fn find(&self, pointer: &str) -> &Self {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::List(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => node.entry(&step).map(|entry| &entry.value),
            };
            match next {
                Some(next) => node = next,
                None => return node,
            }
        }
        node
    }

    /// Where the key stands that a JSON pointer ends with; where the value stands if that is no key.
    pub(super) fn key_place(&self, pointer: &str) -> Place {
        let parent = pointer.rsplit_once('/');
        let entry = parent.and_then(|(parent, key)| {
            let key = key.replace("~1", "/").replace("~0", "~");
            self.find(parent).entry(&key)
        });
        entry.map_or_else(|| self.find(pointer).at, |entry| entry.at)
    }

    /// Calls for this and for everything below, from the top to the end of the file.
    pub(super) fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        visit(self);
        match &self.kind {
            Kind::List(items) => items.iter().for_each(|item| item.walk(visit)),
            Kind::Map(entries) => entries.iter().for_each(|entry| entry.value.walk(visit)),
            _ => {}
        }
    }
}

/// `~` and `/` of a key, as a JSON pointer has them.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Kind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false, a list or a map")
            }
            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Kind, D::Error> {
                Kind::deserialize(inner)
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Kind, E> {
                Ok(Kind::Bool(truth))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Kind, E> {
                Ok(Kind::Number(number.into()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
                Ok(Kind::Number(number.into()))
            }
            fn visit_i128<E: Error>(self, number: i128) -> Result<Kind, E> {
                self.visit_f64(number as f64)
            }
            fn visit_u128<E: Error>(self, number: u128) -> Result<Kind, E> {
                self.visit_f64(number as f64)
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Kind, E> {
                let text = || Kind::Text(number.to_string());
                Ok(Number::from_f64(number).map_or_else(text, Kind::Number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
                Ok(Kind::Text(text.to_owned()))
            }
            fn visit_string<E>(self, text: String) -> Result<Kind, E> {
                Ok(Kind::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Spanned<Kind>>()? {
                    items.push(item.into());
                }
                Ok(Kind::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    entries.push(Entry {
                        at: place(key.referenced),
                        key: key.value,
                        value: map.next_value::<Spanned<Kind>>()?.into(),
                    });
                }
                Ok(Kind::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_is_found_where_it_stands() {
        let tree = parse("a: 1\nb:\n  - x: [1.5, yes, ~]\n    'k/~': \"é\" # why\n").unwrap();
        assert_eq!(
            tree.value(),
            json!({"a": 1, "b": [{"x": [1.5, "yes", null], "k/~": "é"}]})
        );
        let at = |pointer| {
            let place = tree.find(pointer).at;
            (place.line, place.column)
        };
        assert_eq!(at("/a"), (1, 4));
        assert_eq!(at("/b/0/x/1"), (3, 14));
        assert_eq!(at(&format!("/b/0/{}", escaped("k/~"))), (4, 12));
        let key = tree.key_place("/b/0/x");
        assert_eq!((key.line, key.column), (3, 5));
    }

    #[test]
    fn a_key_written_twice_is_there_twice() {
        let tree = parse("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(tree.value(), json!({"a": 1, "b": 2}));
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        let (at, said) = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(
            at.is_some_and(|at| at.line >= 2) && !said.is_empty(),
            "{said}"
        );
        // A file that grows without bound when its aliases are followed.
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..10 {
            let again = vec![format!("*a{}", n - 1); 10].join(", ");
            bomb.push_str(&format!("a{n}: &a{n} [{again}]\n"));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
