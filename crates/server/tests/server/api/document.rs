//! The document that programs read, the page that people read, and the table in `docs/api.md`: three
//! accounts of one API that must not differ.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// A row of the table, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) scopes: Vec<Scope>,
    query: Vec<String>,
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `docs/api.md` says there is.
pub(super) fn table() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let words = cells[2].split([' ', ',']);
        let scopes: Vec<Scope> = words.filter_map(|word| word.parse().ok()).collect();
        assert_eq!(scopes.is_empty(), cells[2] == "none", "{line}");
        let (mut method, mut path) = (Method::GET, String::new());
        for said in cells[1].split('`').skip(1).step_by(2) {
            let (named, place) = said.split_once(' ').unwrap_or(("", said));
            if !named.is_empty() {
                method = named.parse().unwrap();
            }
            let (place, query) = place.split_once('?').unwrap_or((place, ""));
            // “…” is what the one before it has there.
            path = match place.strip_prefix('…') {
                Some("") => path,
                Some(end) => format!("{}{end}", path.rsplit_once('/').unwrap().0),
                None => place.to_owned(),
            };
            let names = query.split('&').filter(|name| !matches!(*name, "" | "…"));
            rows.push(Row {
                method: method.clone(),
                path: path.clone(),
                scopes: scopes.clone(),
                query: names.map(str::to_owned).collect(),
            });
        }
    }
    rows
}

fn document() -> Value {
    serde_json::from_str(&server::http::openapi()).unwrap()
}

/// Every operation, by method and path.
fn each(document: &Value) -> BTreeMap<(String, String), &Value> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(|(method, operation)| ((method.to_uppercase(), path.clone()), operation))
        })
        .collect()
}

#[test]
fn the_document_in_the_repository_is_the_servers() {
    let (path, made) = (
        root().join("docs/openapi.json"),
        server::http::openapi() + "\n",
    );
    if std::env::var_os("CHARGEHAND_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is not what the server says: run this test with CHARGEHAND_BLESS=1"
    );
}

/// Calls with every object of a JSON document.
fn walk(value: &Value, see: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            see(object);
            object.values().for_each(|value| walk(value, see));
        }
        Value::Array(items) => items.iter().for_each(|value| walk(value, see)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    for text in ["title", "version", "description"] {
        assert!(document["info"][text].is_string(), "{text}");
    }
    let mut referred = BTreeSet::new();
    walk(&document, &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            referred.insert(pointer.rsplit('/').next().unwrap().to_owned());
        }
    });
    for name in document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(referred.contains(name), "nothing refers to {name}");
    }
    let mut ids = BTreeSet::new();
    for ((method, path), operation) in each(&document) {
        let what = format!("{method} {path}");
        let id = operation["operationId"].as_str().expect(&what);
        assert!(ids.insert(id), "two operations are {id}");
        assert!(operation["summary"].is_string(), "{what}");
        assert!(operation["tags"][0].is_string(), "{what}");
        let responses = operation["responses"].as_object().expect(&what);
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{what}"
        );
        let mut in_path: BTreeSet<_> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let mut seen = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect(&what);
            let place = parameter["in"].as_str().expect(&what);
            assert!(seen.insert((name, place)), "{what}: {name} twice");
            assert!(parameter["schema"].is_object(), "{what}: {name}");
            assert!(parameter["description"].is_string(), "{what}: {name}");
            match place {
                "path" => {
                    assert!(in_path.remove(name), "{what}: {name}");
                    assert_eq!(parameter["required"], true, "{what}: {name}");
                }
                "query" | "header" => assert_ne!(parameter["required"], true, "{what}: {name}"),
                other => panic!("{what}: {name} in {other}"),
            }
        }
        assert!(in_path.is_empty(), "{what}: {in_path:?} are not described");
        let names: Vec<_> = operation["security"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|needed| needed.as_object().unwrap().keys().collect::<Vec<_>>())
            .collect();
        for name in names.into_iter().flatten() {
            let schemes = &document["components"]["securitySchemes"];
            assert!(schemes[name].is_object(), "{what}: {name}");
        }
    }
}

// S0-154: the reference has every operation, and no other.
#[test]
fn the_documentation_lists_exactly_what_there_is() {
    let document = document();
    let mut there = each(&document);
    for row in table() {
        let what = (row.method.to_string(), row.path.clone());
        let operation = there
            .remove(&what)
            .unwrap_or_else(|| panic!("docs/api.md has {what:?}, and the server has not"));
        let needs: Vec<_> = operation["security"][0]["key"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|scope| scope.as_str().unwrap().parse::<Scope>().unwrap())
            .collect();
        assert_eq!(needs, row.scopes, "{what:?}");
        let taken: Vec<_> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        for name in &row.query {
            assert!(taken.contains(&name.as_str()), "{what:?} takes no {name}");
        }
    }
    assert!(there.is_empty(), "docs/api.md lacks {:?}", there.keys());
}

// S0-154: a description that programs read is served.
#[tokio::test]
async fn the_document_and_its_page_are_served_and_need_nothing_from_elsewhere() {
    let house = House::memory().await;
    let told = house.get("/openapi.json").told().await;
    assert_eq!(told.of(200), &document());
    assert_eq!(told.header("content-type"), Some("application/json"));
    let page = house.get("/docs").told().await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    let html = page.text.to_lowercase();
    for from_elsewhere in [
        "<script", "<link", "<img", "<iframe", "src=", "@import", "url(",
    ] {
        assert!(!html.contains(from_elsewhere), "{from_elsewhere}");
    }
    for link in html.split("href=").skip(1) {
        let link = link.trim_start_matches(['\'', '"']);
        assert!(
            link.starts_with(['#', '/']) && !link.starts_with("//"),
            "{:.60}",
            link
        );
    }
    let document = document();
    for (method, path) in each(&document).keys() {
        let row = format!("<span class=m>{method}</span><code>{path}</code>");
        assert!(page.text.contains(&row), "{method} {path}");
    }
    house.stop().await;
}
