//! `/docs`, made of the two documents: a page without scripts.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The page's style: the policy names its hash.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--quiet:#767676}\
body{margin:0 auto;max-width:60rem;padding:1rem;font:16px/1.5 system-ui,sans-serif}\
h2{margin-top:3rem;border-bottom:1px solid var(--line)}h3{margin:2rem 0 .25rem;font-size:1.05rem}\
code{font:.9em ui-monospace,monospace}nav ul{columns:16rem;padding-left:1.2rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}\
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-top:1px solid var(--line);overflow-wrap:anywhere}\
th{font-weight:600}p{margin:.25rem 0}.quiet{color:var(--quiet)}\
@media(prefers-color-scheme:dark){:root{--quiet:#9a9a9a}}";

/// The page of these documents.
pub(super) fn render(rest: &Value, socket: &Value) -> String {
    let schemas = members(&socket["components"]["schemas"]);
    let mut page = Page { html: String::new(), schemas: schemas.clone() };
    page.schemas.extend(members(&rest["components"]["schemas"]).clone());
    page.socket("ClientFrame", "What a client says");
    page.socket("SessionEvent", "Events of a session");
    page.socket("ConnectionFrame", "Frames about the connection");
    page.close_codes(&socket["channels"]["stream"]["x-close-codes"]);
    page.rest(members(&rest["paths"]));
    page.types();
    let title = format!("streamgate {}: reference", text(&socket["info"]["version"]));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<header><h1>{title}</h1>\n<p>{}</p>\n<p>For programs: \
         <a href=\"/v1/asyncapi.json\">AsyncAPI</a>, <a href=\"/v1/openapi.json\">OpenAPI</a>.</p></header>\n\
         {}<main>\n{}</main>\n</body>\n</html>\n",
        prose(text(&socket["info"]["description"])),
        contents(&page.html),
        page.html,
    )
}

/// The headings of a page, as links.
fn contents(html: &str) -> String {
    let mut list = String::from("<nav aria-label=\"Contents\"><ul>\n");
    for heading in html.split("<h2 id=\"").skip(1) {
        let (id, rest) = heading.split_once('"').unwrap_or_default();
        let words = rest.trim_start_matches('>').split("</h2>").next().unwrap_or_default();
        let _ = writeln!(list, "<li><a href=\"#{id}\">{words}</a></li>");
    }
    list + "</ul></nav>\n"
}

struct Page {
    html: String,
    schemas: Map<String, Value>,
}

impl Page {
    fn heading(&mut self, words: &str) {
        let id = words.to_lowercase().replace(' ', "-");
        self.add(&format!("<h2 id=\"{id}\">{}</h2>\n", escaped(words)));
    }

    fn add(&mut self, html: &str) {
        self.html.push_str(html);
    }

    /// The frames of a union.
    fn socket(&mut self, union: &str, words: &str) {
        self.heading(words);
        for member in list(&self.schemas[union]["oneOf"].clone()) {
            let name = named(member);
            let schema = self.schemas.get(name).cloned().unwrap_or_default();
            let kind = text(&schema["properties"]["type"]["const"]).to_owned();
            self.add(&format!("<h3 id=\"{name}\"><code>{}</code></h3>\n", escaped(&kind)));
            self.object(&schema);
        }
    }

    fn close_codes(&mut self, codes: &Value) {
        self.heading("Close codes");
        self.add("<p>40xx: don't try again unchanged; 41xx: back off; 42xx: come back at once.</p>\n<table>\n");
        self.add("<tr><th>Code</th><th>Word</th><th>Come back after</th></tr>\n");
        for code in list(codes) {
            let wait = code["retry_after_ms"].as_u64().map_or(String::new(), |wait| format!("{wait} ms"));
            let row = format!("<tr><td>{}</td><td>{}</td><td>{wait}</td></tr>\n", code["code"], text(&code["word"]));
            self.add(&row);
        }
        self.add("</table>\n");
    }

    fn rest(&mut self, paths: &Map<String, Value>) {
        self.heading("REST");
        for (path, methods) in paths {
            for (method, operation) in members(methods) {
                let id = text(&operation["operationId"]);
                let method = method.to_uppercase();
                self.add(&format!("<h3 id=\"{id}\"><code>{method} {}</code></h3>\n", escaped(path)));
                self.add(&format!("<p>{}</p>\n", prose(text(&operation["summary"]))));
                self.parameters(operation);
                self.responses(members(&operation["responses"]));
            }
        }
    }

    fn parameters(&mut self, operation: &Value) {
        let mut rows = String::new();
        for parameter in list(&operation["parameters"]) {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let (kind, words) = (kind(&parameter["schema"]), prose(text(&parameter["description"])));
            let _ = writeln!(
                rows,
                "<tr><td><code>{}</code> <span class=\"quiet\">{place}</span></td><td>{kind}</td><td>{words}</td></tr>",
                escaped(name)
            );
        }
        for (media, content) in members(&operation["requestBody"]["content"]) {
            let kind = kind(&content["schema"]);
            let _ = writeln!(rows, "<tr><td>body</td><td>{kind}</td><td class=\"quiet\">{}</td></tr>", escaped(media));
        }
        if !rows.is_empty() {
            self.add(&format!("<table>\n<tr><th>Takes</th><th>Type</th><th></th></tr>\n{rows}</table>\n"));
        }
    }

    fn responses(&mut self, responses: &Map<String, Value>) {
        self.add("<table>\n<tr><th>Answers</th><th>Type</th><th></th></tr>\n");
        for (status, response) in responses {
            let kinds: Vec<String> =
                members(&response["content"]).values().map(|content| kind(&content["schema"])).collect();
            let words = prose(text(&response["description"]));
            self.add(&format!("<tr><td>{status}</td><td>{}</td><td>{words}</td></tr>\n", kinds.join(" or ")));
        }
        self.add("</table>\n");
    }

    /// The types that frames and routes are made of.
    fn types(&mut self) {
        self.heading("Types");
        for (name, schema) in self.schemas.clone() {
            if self.html.contains(&format!("<h3 id=\"{name}\">")) {
                continue;
            }
            self.add(&format!("<h3 id=\"{name}\">{name}</h3>\n"));
            self.object(&schema);
        }
    }

    /// What a schema is: its fields, or what it may be.
    fn object(&mut self, schema: &Value) {
        self.add(&format!("<p>{}</p>\n", prose(text(&schema["description"]))));
        let fields = members(&schema["properties"]);
        let words: Vec<&Value> = list(&schema["oneOf"]).iter().filter(|one| one["const"].is_string()).collect();
        if !words.is_empty() {
            self.add("<table>\n");
            for word in words {
                let meaning = prose(text(&word["description"]));
                self.add(&format!("<tr><td>{}</td><td>{meaning}</td></tr>\n", kind(word)));
            }
            self.add("</table>\n");
        } else if fields.is_empty() {
            self.add(&format!("<p>{}</p>\n", kind(schema)));
        }
        let rows: Vec<String> = fields
            .iter()
            .filter(|(name, _)| *name != "type")
            .map(|(name, field)| {
                let required = list(&schema["required"]).iter().any(|required| required == name.as_str());
                let optional = if required { "" } else { " <span class=\"quiet\">optional</span>" };
                let words = prose(text(&field["description"]));
                let name = escaped(name);
                format!("<tr><td><code>{name}</code>{optional}</td><td>{}</td><td>{words}</td></tr>\n", kind(field))
            })
            .collect();
        if !rows.is_empty() {
            let rows = rows.concat();
            self.add(&format!("<table>\n<tr><th>Field</th><th>Type</th><th></th></tr>\n{rows}</table>\n"));
        }
    }
}

/// A schema in a word or two.
fn kind(schema: &Value) -> String {
    let joined = |schemas: &Value| list(schemas).iter().map(kind).collect::<Vec<_>>().join(" or ");
    let name = named(schema);
    if !name.is_empty() {
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    for choices in ["allOf", "anyOf", "oneOf"] {
        if schema[choices].is_array() {
            return joined(&schema[choices]);
        }
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("<code>\"{}\"</code>", escaped(word));
    }
    match &schema["type"] {
        Value::String(word) if word == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(word) if word == "object" && schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        Value::String(word) => word.clone(),
        Value::Array(words) => {
            let of = |word: &Value| {
                let mut schema = schema.clone();
                schema["type"] = word.clone();
                kind(&schema)
            };
            words.iter().map(of).collect::<Vec<_>>().join(" or ")
        }
        _ => "anything".to_owned(),
    }
}

/// What a schema refers to.
fn named(schema: &Value) -> &str {
    text(&schema["$ref"]).rsplit('/').next().unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn members(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A description: `code` and **bold** of its comment.
fn prose(words: &str) -> String {
    let mut html = String::new();
    for (at, part) in escaped(words).split('`').enumerate() {
        let part = if at % 2 == 1 { format!("<code>{part}</code>") } else { bold(part) };
        html.push_str(&part);
    }
    html
}

fn bold(words: &str) -> String {
    let parts = words.split("**").enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("<strong>{part}</strong>") } else { part.to_owned() }).collect()
}
