//! The API as an OpenAPI document (3.1), for programs that read one.
//!
//! Schemas are derived from the types that handlers take and send; what else there is
//! to say of a route stands in `routes`, and is compared with the table of routes
//! by tests, and with each answer in programs with debug assertions.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};

use crate::VERSION;

use super::access;
use super::problem::{MEDIA_TYPE, Wire};

mod daemon;
mod routes;
mod schemas;
mod told;
mod values;

use schemas::{Kind, Schemas};
use told::{Answer, Form, Parameter, Told, Values};

/// What is said ahead of all routes.
const ABOUT: &str = "A durable task queue, scheduler and supervisor for a Linux host. On the unix \
                     socket the kernel says who asks; over TCP a token or a client certificate \
                     does. Each answer has an `X-Request-Id`, by which the journal and the events \
                     name the request; a client may send its own.";

/// `GET /v1/openapi.json`.
pub(super) async fn describe() -> Response {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let bytes = DOCUMENT.get_or_init(|| document().to_string().into());
    let mut response = Response::new(Body::from(bytes.clone()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What was told of a route, for comparison with what it sends.
pub(super) fn told_of(method: &str, path: &str) -> Option<Promise> {
    let is_it = |told: &Told| told.method == method && told.path == path;
    routes::all().into_iter().find(is_it).map(Promise)
}

/// What a route was said to send.
#[derive(Clone)]
pub(super) struct Promise(Told);

impl Promise {
    /// Whether it sent that.
    pub(super) fn is_kept<B>(&self, response: &hyper::Response<B>) -> bool {
        self.0.includes(response)
    }
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let problem = schemas.sent(Kind::of::<Wire>());
    let mut paths = Map::new();
    for told in routes::all() {
        let path = paths.entry(told.path).or_insert_with(|| json!({}));
        path[told.method.to_ascii_lowercase()] = operation(&told, &mut schemas);
    }
    let (schemas, renamed) = schemas.all();
    // Only bodies of requests were handed out under names that may not last.
    for body in paths
        .values_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(Map::values_mut)
        .filter_map(|operation| operation.get_mut("requestBody"))
    {
        renamed.apply(body);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "taskdaemon",
            "version": VERSION,
            "description": ABOUT,
            "license": { "name": "MIT or Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:8377", "description": "taskdaemon-tcp.socket" }],
        "security": [{ "token": [] }, { "certificate": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that `taskdaemon token new` made.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A certificate that `api.certificates` names.",
                },
            },
            "headers": headers(),
            "parameters": {
                "RequestId": parameter("header", &REQUEST_ID),
                "TraceParent": parameter("header", &TRACE_PARENT),
                "TraceState": parameter("header", &TRACE_STATE),
            },
            "responses": {
                "Refused": refusal("The request is refused; `code` says why.", &problem),
                "Failed": refusal("The daemon could not do it; `code` says why.", &problem),
            },
        },
    })
}

const REQUEST_ID: Parameter = told::one(
    "X-Request-Id",
    Values::Text,
    "What the client calls this request: up to 64 letters, digits and any of -_.:/. Another name \
     is given to it where that is not so.",
);

const TRACE_PARENT: Parameter = told::one(
    "traceparent",
    Values::Text,
    "The place in a trace that this is asked for in, as W3C Trace Context has it. A malformed one \
     begins a new trace.",
);
const TRACE_STATE: Parameter = told::one(
    "tracestate",
    Values::Text,
    "What else is handed on in that trace.",
);

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "What the request is called in the journal and the events.",
            "schema": { "type": "string" },
        },
        "RetryAfter": {
            "description": "Seconds after which another try makes sense.",
            "schema": { "type": "integer", "minimum": 0 },
        },
    })
}

fn refusal(what: &str, problem: &Value) -> Value {
    json!({
        "description": what,
        "headers": {
            "X-Request-Id": { "$ref": "#/components/headers/RequestId" },
            "Retry-After": { "$ref": "#/components/headers/RetryAfter" },
        },
        "content": { MEDIA_TYPE: { "schema": problem } },
    })
}

fn operation(told: &Told, schemas: &mut Schemas) -> Value {
    let least = access::table()
        .into_iter()
        .find(|row| row.method == told.method && row.path == told.path)
        .and_then(|row| row.least);
    let group = told
        .path
        .split('/')
        .nth(2)
        .filter(|_| told.path.starts_with("/v1/"));
    let group = group.filter(|group| ["tasks", "queues", "schedules", "agents"].contains(group));
    let mut operation = json!({
        "operationId": told.id,
        "tags": [group.unwrap_or("daemon")],
        "summary": told.what,
        "parameters": parameters(told),
        "responses": responses(told, schemas),
    });
    match least {
        Some(least) => {
            let role = format!("Takes the role `{}`.", least.word());
            operation["description"] = role.into();
        }
        None => operation["security"] = json!([]),
    }
    if let Some(kind) = told.body {
        let schema = schemas.taken(kind);
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    }
    operation
}

fn parameters(told: &Told) -> Vec<Value> {
    let names = told.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(in_path(name, told))
    });
    let query = told.query.iter().map(|one| parameter("query", one));
    let headers = told.headers.iter().map(|one| parameter("header", one));
    let of_all = match told.method {
        "GET" => &["RequestId"][..],
        _ => &["RequestId", "TraceParent", "TraceState"],
    };
    let of_all = of_all.iter();
    let of_all = of_all.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    names.chain(query).chain(headers).chain(of_all).collect()
}

fn in_path(name: &'static str, told: &Told) -> Value {
    let (values, what) = match name {
        "id" => (
            Values::Number(1, i64::MAX.unsigned_abs()),
            "The task's number.",
        ),
        "verb" => (Values::Words(told.verbs), "What is done."),
        "queue" => (
            Values::Form("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
            "The queue's name.",
        ),
        "model" => (Values::Text, "The model's name."),
        _ => (
            Values::Form("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
            "Its name or number.",
        ),
    };
    let mut parameter = parameter("path", &told::one(name, values, what));
    parameter["required"] = true.into();
    parameter
}

fn parameter(place: &str, one: &Parameter) -> Value {
    json!({
        "name": one.name,
        "in": place,
        "description": one.what,
        "schema": one.values.schema(),
    })
}

fn responses(told: &Told, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    for answer in &told.answers {
        let entry = responses
            .entry(answer.status.to_string())
            .or_insert_with(|| {
                json!({
                    "description": "",
                    "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
                    "content": {},
                })
            });
        let known = entry["description"].as_str().unwrap_or_default();
        entry["description"] = format!("{known} {}", answer.what).trim().into();
        let content = &mut entry["content"][answer.form.media_type()];
        let schema = schema(answer, schemas);
        let other = content.get_mut("schema").map(Value::take);
        let schema = match other {
            None => schema,
            Some(other) => json!({ "anyOf": [other, schema] }),
        };
        *content = json!({ "schema": schema });
    }
    let of = |name: &str| json!({ "$ref": format!("#/components/responses/{name}") });
    responses.insert("4XX".to_owned(), of("Refused"));
    responses.insert("5XX".to_owned(), of("Failed"));
    responses.into()
}

fn schema(answer: &Answer, schemas: &mut Schemas) -> Value {
    match answer.form {
        Form::Json(kind) => schemas.sent(kind),
        Form::Document => json!({ "type": "object", "required": ["openapi", "info", "paths"] }),
        Form::Figures | Form::Events => json!({ "type": "string" }),
        // Any bytes, of which a schema has nothing to say.
        Form::Bytes => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_tells_of_each_route_and_of_no_other() {
        let told: Vec<_> = routes::all();
        let told: Vec<_> = told.iter().map(|told| (told.method, told.path)).collect();
        let table = access::table().into_iter();
        let table: BTreeSet<_> = table.map(|row| (row.method, row.path)).collect();
        assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), table);
        assert_eq!(told.len(), table.len(), "none twice");
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_each_verb_is_named() {
        let all = routes::all();
        let names: BTreeSet<_> = all.iter().map(|told| told.id).collect();
        assert_eq!(names.len(), all.len());
        for told in &all {
            assert_eq!(
                told.path.ends_with("{verb}"),
                !told.verbs.is_empty(),
                "{}",
                told.path
            );
            assert!(!told.answers.is_empty(), "{}", told.path);
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(to)) = object.get("$ref") {
                        found.insert(to.clone());
                    }
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 30, "{found:?}");
        for to in &found {
            let pointer = to.strip_prefix('#').expect("in this document");
            assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
        }
        let schemas = document.pointer("/components/schemas").expect("schemas");
        for name in schemas.as_object().expect("an object").keys() {
            let to = format!("#/components/schemas/{name}");
            assert!(found.contains(&to), "nobody refers to {name}");
        }
    }
}
