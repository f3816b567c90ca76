//! The API as a page that people read, made from the very document that programs read. No script, no
//! font, nothing from elsewhere: it works where the server works.

use serde_json::Value;
use std::fmt::Write as _;
use utoipa::openapi::OpenApi;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1b1f24;background:#fff}h2{margin-top:2.5rem;border-bottom:1px solid #d0d7de}\
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}\
summary{cursor:pointer}code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f6f8fa;\
padding:.6rem;overflow:auto;border-radius:6px}.m{display:inline-block;min-width:4.2rem;font-weight:700}\
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}h2,details{border-color:#30363d}\
pre{background:#161b22}a{color:#58a6ff}}";

/// The page.
pub(crate) fn page(document: &OpenApi) -> String {
    let document = serde_json::to_value(document).unwrap_or_default();
    let mut html = String::from("<!doctype html><html lang=en><meta charset=utf-8>");
    let _ = write!(
        html,
        "<meta name=viewport content='width=device-width'><title>Chargehand API</title><style>{STYLE}</style>\
         <h1>Chargehand API</h1>"
    );
    for part in text(&document["info"]["description"]).split("\n\n") {
        let _ = write!(html, "<p>{}</p>", escaped(part).replace("\n- ", "<br>· "));
    }
    html.push_str("<p>The same for programs: <a href=/openapi.json>openapi.json</a>.</p>");
    for tag in tags(&document) {
        let _ = write!(html, "<h2>{}</h2>", escaped(&tag));
        operations(&document, &tag, &mut html);
    }
    schemas(&document, &mut html);
    html
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn each_operation(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = ["get", "put", "post", "delete"].into_iter();
        methods.filter_map(move |method| Some((path.as_str(), method, item.get(method)?)))
    })
}

fn tags(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (_, _, operation) in each_operation(document) {
        let tag = text(&operation["tags"][0]).to_owned();
        if !found.contains(&tag) {
            found.push(tag);
        }
    }
    found
}

fn operations(document: &Value, tag: &str, html: &mut String) {
    for (path, method, operation) in each_operation(document) {
        if text(&operation["tags"][0]) != tag {
            continue;
        }
        let (method, path) = (method.to_uppercase(), escaped(path));
        let _ = write!(
            html,
            "<details><summary><span class=m>{method}</span><code>{path}</code> — {}</summary>",
            escaped(text(&operation["summary"]))
        );
        let _ = write!(html, "<p>{}</p>", escaped(text(&operation["description"])));
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let rows: Vec<_> = parameters
            .map(|parameter| {
                format!(
                    "<tr><td><code>{}</code><td>{}<td>{}",
                    escaped(text(&parameter["name"])),
                    text(&parameter["in"]),
                    escaped(text(&parameter["description"]))
                )
            })
            .collect();
        if !rows.is_empty() {
            let _ = write!(html, "<table>{}</table>", rows.concat());
        }
        if let Some(body) = operation["requestBody"]["content"]["application/json"].get("schema") {
            let _ = write!(html, "<p>Body: {}</p>", named(body));
        }
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            let body = response["content"]
                .as_object()
                .and_then(|all| all.values().next());
            let body = body.map_or(String::new(), |body| format!(" {}", named(&body["schema"])));
            let _ = write!(
                html,
                "<p>{status}:{body} {}</p>",
                escaped(text(&response["description"]))
            );
        }
        html.push_str("</details>");
    }
}

/// A link to a schema, or what it is.
fn named(schema: &Value) -> String {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let name = escaped(reference.rsplit('/').next().unwrap_or(reference));
            format!("<a href='#{name}'>{name}</a>")
        }
        None => format!("<code>{}</code>", escaped(text(&schema["type"]))),
    }
}

fn schemas(document: &Value, html: &mut String) {
    html.push_str("<h2>bodies</h2>");
    let all = document["components"]["schemas"].as_object();
    for (name, schema) in all.into_iter().flatten() {
        let pretty = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = write!(
            html,
            "<details id='{0}'><summary><code>{0}</code> — {1}</summary><pre>{2}</pre></details>",
            escaped(name),
            escaped(text(&schema["description"])),
            escaped(&pretty)
        );
    }
}
