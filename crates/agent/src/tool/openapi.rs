//! What an OpenAPI document (3.0 or 3.1, JSON or YAML) offers as tools.
//!
//! Read when the crew file is, so that its mistakes are told there and a run pins what it uses. A
//! document is somebody else's: its size, its depth, its operations and what its references grow to are
//! bounded, and a reference leads to the document itself or nowhere.
//!
//! Deliberately absent: bodies that are not JSON, cookies, webhooks, servers of single operations, and
//! schemas of answers: servers promise much.

use domain::record::EffectClass;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a document at most.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Keys, values and lists of a document at most.
pub const DOCUMENT_NODES_MAX: usize = 400_000;
/// Operations of one document that become tools at most.
pub const OPERATIONS_MAX: usize = 200;
/// Parameters of one operation at most.
pub const PARAMETERS_MAX: usize = 64;
/// Schemas within schemas that are gone into at most.
pub const SCHEMA_DEPTH_MAX: usize = 24;
/// Schemas that the arguments of one operation are made of at most, references followed.
pub const SCHEMAS_MAX: usize = 5_000;

/// Characters of an operation's description.
const DESCRIPTION_CHARS_MAX: usize = 1_000;
/// Letters of an operation's name.
const NAME_CHARS_MAX: usize = 32;
/// The argument that holds the body.
const BODY: &str = "body";
/// Headers that are not an argument's to set.
const HEADERS_KEPT: [&str; 13] = [
    "accept",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "idempotency-key",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What is used of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// Its first server, if it is an address in full.
    pub(crate) server: Option<String>,
    /// Its operations, by the names of their tools.
    pub(crate) operations: BTreeMap<String, Operation>,
    /// Operations that cannot be a tool, by the names that they would have, and why.
    pub(crate) unfit: BTreeMap<String, String>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    /// Its name in the document; may be empty.
    pub id: String,
    /// GET, HEAD, POST, PUT, PATCH or DELETE.
    pub method: String,
    /// Its path, with names in braces.
    pub path: String,
    /// What it does, in the document's words.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub input: Value,
    /// What goes where, beside the body.
    pub parameters: Vec<Parameter>,
    /// The argument that is the body.
    pub body: Option<String>,
    /// What doing it twice would mean.
    pub effect: EffectClass,
    /// Where its key goes; `None` when it wants none.
    pub key: Option<KeyPlace>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// The name of the argument.
    pub argument: String,
    /// Its name on the wire.
    pub name: String,
    /// Where it goes.
    pub place: ParameterPlace,
    /// How lists and objects are written.
    pub form: Form,
}

/// Where a parameter goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterPlace {
    /// Into the path.
    Path,
    /// Behind the question mark.
    Query,
    /// Into a header.
    Header,
}

/// How a list or an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `a,b`.
    Joined(char),
    /// `name=a&name=b`, `a=1&b=2`.
    Exploded,
    /// `name[a]=1&name[b]=2`.
    Deep,
    /// As JSON.
    Json,
}

/// Where a key goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    /// `Authorization: Bearer …`.
    Bearer,
    /// `Authorization: Basic …`; the key is `user:password`.
    Basic,
    /// A header of this name.
    Header(String),
    /// A parameter of this name behind the question mark.
    Query(String),
}

/// Reads a document.
///
/// # Errors
/// Why it is none that can be used.
pub(crate) fn read(document: &Value) -> Result<Document, String> {
    let version = document["openapi"].as_str().unwrap_or_default();
    if !(version.starts_with("3.0") || version.starts_with("3.1")) {
        let said = match document["swagger"].as_str() {
            Some(old) => format!("it is Swagger {old}"),
            None => "it does not say `openapi: 3.0.x` or `3.1.x`".into(),
        };
        return Err(format!("{said}; OpenAPI 3.0 and 3.1 are read"));
    }
    let paths = document["paths"].as_object();
    let paths = paths.ok_or("it has no `paths`")?;
    let mut read = Document {
        server: server(document),
        operations: BTreeMap::new(),
        unfit: BTreeMap::new(),
    };
    for (path, item) in paths {
        let item = referred(document, item)?;
        for method in ["get", "head", "post", "put", "patch", "delete"] {
            let Some(operation) = item.get(method) else {
                continue;
            };
            let id = operation["operationId"].as_str().unwrap_or_default();
            let wanted = match id {
                "" => tool_name(&format!("{method}_{path}")),
                id => tool_name(id),
            };
            let mut name = wanted.clone();
            let mut number = 2;
            while read.operations.contains_key(&name) || read.unfit.contains_key(&name) {
                let ending = format!("_{number}");
                let kept = wanted.len().min(NAME_CHARS_MAX - ending.len());
                name = format!("{}{ending}", &wanted[..kept]);
                number += 1;
            }
            let mut reading = Reading {
                document,
                schemas: 0,
            };
            match reading.operation(id, method, path, item, operation) {
                Ok(operation) => {
                    read.operations.insert(name, operation);
                }
                Err(why) => {
                    read.unfit.insert(name, why);
                }
            }
            if read.operations.len() + read.unfit.len() > 20 * OPERATIONS_MAX {
                return Err(format!(
                    "it has more than {} operations",
                    20 * OPERATIONS_MAX
                ));
            }
        }
    }
    Ok(read)
}

/// A name that a tool can have: small letters, with `_` where a capital one begins a word.
fn tool_name(id: &str) -> String {
    let mut name = String::new();
    let mut before = '_';
    for c in id.chars() {
        let small = c.to_ascii_lowercase();
        if c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            name.push('_');
        }
        match small {
            'a'..='z' | '0'..='9' | '-' => name.push(small),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
        before = c;
    }
    let name = name.trim_matches(['_', '-']);
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    match name.is_empty() {
        true => "operation".into(),
        false => name,
    }
}

/// The first server, with its variables' defaults.
fn server(document: &Value) -> Option<String> {
    let server = &document["servers"][0];
    let mut url = server["url"].as_str()?.to_owned();
    for (name, variable) in server["variables"].as_object().into_iter().flatten() {
        let default = variable["default"].as_str().unwrap_or_default();
        url = url.replace(&format!("{{{name}}}"), default);
    }
    (url.starts_with("http://") || url.starts_with("https://")).then_some(url)
}

/// What a value refers to, or the value itself.
fn referred<'a>(document: &'a Value, mut value: &'a Value) -> Result<&'a Value, String> {
    for _ in 0..SCHEMA_DEPTH_MAX {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
            return Ok(value);
        };
        value = found(document, reference)?;
    }
    Err("its references go round in circles".into())
}

fn found<'a>(document: &'a Value, reference: &str) -> Result<&'a Value, String> {
    let shown: String = reference.chars().take(100).collect();
    let pointer = reference
        .strip_prefix('#')
        .ok_or_else(|| format!("it refers to `{shown}`, which is not in the document itself"))?;
    let found = document.pointer(pointer);
    found.ok_or_else(|| format!("it refers to `{shown}`, which is not there"))
}

struct Reading<'a> {
    document: &'a Value,
    schemas: usize,
}

impl<'a> Reading<'a> {
    fn operation(
        &mut self,
        id: &str,
        method: &str,
        path: &str,
        item: &'a Value,
        operation: &'a Value,
    ) -> Result<Operation, String> {
        if !path.starts_with('/') || path.contains(['?', '#', '\\']) {
            return Err("its path is none".into());
        }
        let (mut properties, mut required) = (Map::new(), Vec::new());
        let mut parameters = Vec::new();
        // Those of the operation stand for those of the same name and place of its path.
        let mut seen = BTreeSet::new();
        let own = operation["parameters"].as_array().into_iter().flatten();
        let shared = item["parameters"].as_array().into_iter().flatten();
        for written in own.chain(shared) {
            let written = referred(self.document, written)?;
            let name = written["name"].as_str().unwrap_or_default();
            let place = written["in"].as_str().unwrap_or_default();
            if !seen.insert((name, place)) {
                continue;
            }
            if parameters.len() == PARAMETERS_MAX {
                return Err(format!("it has more than {PARAMETERS_MAX} parameters"));
            }
            let needed = written["required"] == true;
            let place = match place {
                "path" => ParameterPlace::Path,
                "query" => ParameterPlace::Query,
                "header" if HEADERS_KEPT.contains(&name.to_ascii_lowercase().as_str()) => continue,
                "header" => ParameterPlace::Header,
                _ if !needed => continue,
                other => return Err(format!("it needs “{name}” in {other}")),
            };
            let (schema, form) = match written["content"].as_object() {
                Some(content) => {
                    let json = content.iter().find(|(kind, _)| is_json(kind));
                    let (_, media) = json.ok_or(format!("“{name}” is not JSON"))?;
                    (&media["schema"], Form::Json)
                }
                None => (&written["schema"], form(written, place)),
            };
            let mut schema = self.schema(schema, &mut Vec::new(), 0)?;
            describe(&mut schema, &written["description"]);
            let mut argument = name.to_owned();
            if properties.contains_key(&argument) || argument == BODY {
                argument = match place {
                    ParameterPlace::Path => format!("path_{name}"),
                    ParameterPlace::Query => format!("query_{name}"),
                    ParameterPlace::Header => format!("header_{name}"),
                };
            }
            if needed || place == ParameterPlace::Path {
                required.push(json!(argument));
            }
            properties.insert(argument.clone(), schema);
            parameters.push(Parameter {
                argument,
                name: name.to_owned(),
                place,
                form,
            });
        }
        let in_path = |name: &str| {
            let of = |p: &Parameter| p.place == ParameterPlace::Path && p.name == name;
            parameters.iter().any(of)
        };
        if let Some(unsaid) = braces(path).find(|name| !in_path(name)) {
            return Err(format!("nothing is said of “{unsaid}” in its path"));
        }
        let mut body = None;
        if let Some(written) = operation.get("requestBody") {
            let written = referred(self.document, written)?;
            let content = written["content"].as_object();
            let media = content.and_then(|content| content.iter().find(|(kind, _)| is_json(kind)));
            match media {
                Some((_, media)) => {
                    let mut schema = self.schema(&media["schema"], &mut Vec::new(), 0)?;
                    describe(&mut schema, &written["description"]);
                    properties.insert(BODY.into(), schema);
                    if written["required"] == true {
                        required.push(json!(BODY));
                    }
                    body = Some(BODY.to_owned());
                }
                None if written["required"] == true => {
                    return Err("its body is not JSON".into());
                }
                None => {}
            }
        }
        let input = json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        });
        if let Err(fault) = super::compiled(&input) {
            let fault: String = fault.to_string().chars().take(200).collect();
            return Err(format!("the schema of its arguments is none: {fault}"));
        }
        let said = ["summary", "description"].map(|key| operation[key].as_str().unwrap_or(""));
        let said = said.map(str::trim).join("\n");
        let said: String = said.trim().chars().take(DESCRIPTION_CHARS_MAX).collect();
        let method = method.to_ascii_uppercase();
        Ok(Operation {
            id: id.to_owned(),
            description: format!("{said}\n({method} {path})").trim().to_owned(),
            path: path.to_owned(),
            effect: match method.as_str() {
                "GET" | "HEAD" => EffectClass::Pure,
                "PUT" | "DELETE" => EffectClass::Keyed,
                _ => EffectClass::AtMostOnce,
            },
            method,
            input,
            parameters,
            body,
            key: self.key(operation),
        })
    }

    /// Where the key goes: the first way that the document allows and that is known here.
    fn key(&self, operation: &Value) -> Option<KeyPlace> {
        let security = operation.get("security");
        let security = security.or_else(|| self.document.get("security"));
        let Some(ways) = security.and_then(Value::as_array) else {
            return Some(KeyPlace::Bearer);
        };
        if ways.is_empty() {
            return None;
        }
        let names = ways.iter().filter_map(Value::as_object);
        let names = names.flat_map(|way| way.keys());
        let schemes = &self.document["components"]["securitySchemes"];
        let mut places = names.filter_map(|name| {
            let scheme = referred(self.document, schemes.get(name)?).ok()?;
            let said = |key: &str| scheme[key].as_str().unwrap_or_default();
            match (said("type"), said("in"), said("scheme")) {
                ("apiKey", "header", _) => Some(KeyPlace::Header(said("name").into())),
                ("apiKey", "query", _) => Some(KeyPlace::Query(said("name").into())),
                ("http", _, basic) if basic.eq_ignore_ascii_case("basic") => Some(KeyPlace::Basic),
                ("http" | "oauth2" | "openIdConnect", ..) => Some(KeyPlace::Bearer),
                _ => None,
            }
        });
        Some(places.next().unwrap_or(KeyPlace::Bearer))
    }

    /// A schema as draft 2020-12 has it, with what it refers to in its place. Where it comes back to
    /// itself, anything will do.
    fn schema(
        &mut self,
        schema: &'a Value,
        within: &mut Vec<&'a str>,
        depth: usize,
    ) -> Result<Value, String> {
        self.schemas += 1;
        if self.schemas > SCHEMAS_MAX {
            return Err(format!(
                "its arguments are made of more than {SCHEMAS_MAX} schemas"
            ));
        }
        if depth > SCHEMA_DEPTH_MAX {
            return Ok(json!({}));
        }
        let Some(written) = schema.as_object() else {
            return Ok(match schema {
                Value::Bool(_) => schema.clone(),
                _ => json!({}),
            });
        };
        if let Some(reference) = written.get("$ref").and_then(Value::as_str) {
            if within.contains(&reference) {
                return Ok(json!({}));
            }
            within.push(reference);
            let target = found(self.document, reference)?;
            let read = self.schema(target, within, depth + 1);
            within.pop();
            let mut read = read?;
            describe(&mut read, &schema["description"]);
            return Ok(read);
        }
        let mut read = Map::new();
        for (key, value) in written {
            let value = match key.as_str() {
                "properties" | "patternProperties" | "dependentSchemas" => {
                    let below = value.as_object().into_iter().flatten();
                    let below = below.map(|(name, below)| {
                        Ok((name.clone(), self.schema(below, within, depth + 1)?))
                    });
                    Value::Object(below.collect::<Result<_, String>>()?)
                }
                "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                    let below = value.as_array().into_iter().flatten();
                    let below = below.map(|below| self.schema(below, within, depth + 1));
                    Value::Array(below.collect::<Result<_, String>>()?)
                }
                "items"
                | "additionalProperties"
                | "not"
                | "contains"
                | "propertyNames"
                | "if"
                | "then"
                | "else" => self.schema(value, within, depth + 1)?,
                // Of 3.0; what these were is told below.
                "exclusiveMinimum" | "exclusiveMaximum" if value.is_boolean() => continue,
                "pattern" if regex::Regex::new(value.as_str().unwrap_or_default()).is_err() => {
                    continue;
                }
                "type" | "enum" | "const" | "format" | "description" | "default" | "minimum"
                | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf"
                | "minLength" | "maxLength" | "pattern" | "minItems" | "maxItems"
                | "uniqueItems" | "minProperties" | "maxProperties" | "required"
                | "minContains" | "maxContains" | "dependentRequired" => value.clone(),
                _ => continue,
            };
            read.insert(key.clone(), value);
        }
        for (exclusive, bound) in [
            ("exclusiveMinimum", "minimum"),
            ("exclusiveMaximum", "maximum"),
        ] {
            if written.get(exclusive) == Some(&json!(true))
                && let Some(value) = read.remove(bound)
            {
                read.insert(exclusive.into(), value);
            }
        }
        let read = Value::Object(read);
        Ok(match written.get("nullable") == Some(&json!(true)) {
            true => json!({"anyOf": [read, {"type": "null"}]}),
            false => read,
        })
    }
}

fn describe(schema: &mut Value, description: &Value) {
    if let (Value::Object(schema), Value::String(text)) = (schema, description) {
        let text: String = text.chars().take(DESCRIPTION_CHARS_MAX).collect();
        schema.insert("description".into(), json!(text));
    }
}

fn form(parameter: &Value, place: ParameterPlace) -> Form {
    let style = parameter["style"].as_str();
    let explode = parameter["explode"].as_bool();
    match (place, style.unwrap_or_default()) {
        (ParameterPlace::Query, "deepObject") => Form::Deep,
        (ParameterPlace::Query, "spaceDelimited") => Form::Joined(' '),
        (ParameterPlace::Query, "pipeDelimited") => Form::Joined('|'),
        (ParameterPlace::Query, _) if explode.unwrap_or(true) => Form::Exploded,
        _ => Form::Joined(','),
    }
}

fn is_json(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The names in braces of a path.
pub(super) fn braces(path: &str) -> impl Iterator<Item = &str> {
    let pieces = path.split('{').skip(1);
    pieces.filter_map(|piece| Some(piece.split_once('}')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(paths: Value, components: Value) -> Value {
        json!({"openapi": "3.0.3", "servers": [{"url": "https://{at}.example/v1", "variables": {"at": {"default": "shop"}}}], "paths": paths, "components": components})
    }

    #[test]
    fn names_are_such_as_tools_have() {
        for (id, name) in [
            ("getOrder", "get_order"),
            ("GetHTTPStatus", "get_httpstatus"),
            ("orders.list/all", "orders_list_all"),
            ("_x", "x"),
            ("…", "operation"),
        ] {
            assert_eq!(tool_name(id), name);
        }
        assert_eq!(tool_name(&"a".repeat(99)).len(), NAME_CHARS_MAX);
    }

    #[test]
    fn schemas_of_3_0_become_those_of_today_and_circles_end() {
        let node = json!({"type": "object", "required": ["n"], "x-own": 1, "example": {}, "properties": {
            "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": true, "nullable": true},
            "next": {"$ref": "#/components/schemas/Node"},
            "odd": {"type": "string", "pattern": "(?=x)"}
        }});
        let body = json!({"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}});
        let read = read(&document(
            json!({"/n": {"post": {"operationId": "add", "requestBody": body}}}),
            json!({"schemas": {"Node": node}}),
        ));
        let read = read.unwrap();
        assert_eq!(read.server.as_deref(), Some("https://shop.example/v1"));
        let input = &read.operations["add"].input;
        assert_eq!(input["required"], json!(["body"]));
        let properties = &input["properties"]["body"]["properties"];
        assert_eq!(
            properties["n"],
            json!({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "null"}]})
        );
        assert_eq!(properties["next"], json!({}));
        assert_eq!(properties["odd"], json!({"type": "string"}));
        assert_eq!(read.operations["add"].effect, EffectClass::AtMostOnce);
    }

    #[test]
    fn what_grows_without_bound_is_no_tool() {
        let mut schemas = Map::new();
        for n in 0..30 {
            let below = json!({"$ref": format!("#/components/schemas/S{}", n + 1)});
            let wide: Map<String, Value> =
                (0..9).map(|k| (format!("k{k}"), below.clone())).collect();
            schemas.insert(format!("S{n}"), json!({"properties": wide}));
        }
        schemas.insert("S30".into(), json!({"type": "string"}));
        let body = json!({"content": {"application/json": {"schema": {"$ref": "#/components/schemas/S0"}}}});
        let read = read(&document(
            json!({"/n": {"post": {"operationId": "bomb", "requestBody": body}}}),
            json!({"schemas": schemas}),
        ));
        let read = read.unwrap();
        assert!(read.unfit["bomb"].contains("5000 schemas"), "{read:?}");
    }

    #[test]
    fn what_cannot_be_asked_for_is_no_tool_and_says_why() {
        let elsewhere = json!({"name": "q", "in": "query", "schema": {"$ref": "other.yaml#/X"}});
        let form = json!({"required": true, "content": {"multipart/form-data": {}}});
        let read = read(&document(
            json!({
                "/a/{id}": {"get": {"operationId": "unsaid"}},
                "/b": {"get": {"operationId": "elsewhere", "parameters": [elsewhere]}},
                "/c": {"post": {"operationId": "form", "requestBody": form}},
                "/d": {"get": {"operationId": "circle", "parameters": [{"$ref": "#/components/parameters/P"}]}},
                "/e": {"get": {"operationId": "fine"}, "trace": {"operationId": "trace"}}
            }),
            json!({"parameters": {"P": {"$ref": "#/components/parameters/P"}}}),
        ));
        let read = read.unwrap();
        assert_eq!(read.operations.keys().collect::<Vec<_>>(), ["fine"]);
        for (name, why) in [
            ("unsaid", "id"),
            ("elsewhere", "other.yaml"),
            ("form", "not JSON"),
            ("circle", "circles"),
        ] {
            assert!(read.unfit[name].contains(why), "{name}: {read:?}");
        }
        assert!(
            super::read(&json!({"swagger": "2.0"}))
                .unwrap_err()
                .contains("Swagger 2.0")
        );
    }
}
