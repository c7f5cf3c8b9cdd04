//! The schemas of all types that routes take and send, by name, and references
//! to them. What is sent and what is taken are told apart: a type may look
//! different on its way in.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Where the schemas are in a document.
const PLACE: &str = "/components/schemas";

/// A type on the wire.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    name: fn() -> &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Kind {
    pub(super) const fn of<T: JsonSchema>() -> Self {
        Self {
            name: std::any::type_name::<T>,
            schema: SchemaGenerator::subschema_for::<T>,
        }
    }

    /// The type's name in the program.
    pub(super) fn name(self) -> &'static str {
        (self.name)()
    }
}

/// Gathers schemas.
pub(super) struct Schemas {
    sent: SchemaGenerator,
    taken: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = PLACE.into();
                settings.meta_schema = None;
            })
        };
        Self {
            sent: settings().for_serialize().into_generator(),
            taken: settings().for_deserialize().into_generator(),
        }
    }

    /// The schema of something that is sent.
    pub(super) fn sent(&mut self, kind: Kind) -> Value {
        (kind.schema)(&mut self.sent).to_value()
    }

    /// The schema of something that is taken, by a name that [`Self::all`] mends.
    pub(super) fn taken(&mut self, kind: Kind) -> Value {
        (kind.schema)(&mut self.taken).to_value()
    }

    /// All that are referred to, and a change of what was handed out by
    /// [`Self::taken`].
    pub(super) fn all(mut self) -> (Map<String, Value>, Renamed) {
        let mut all = self.sent.take_definitions(true);
        let taken = self.taken.take_definitions(true);
        let is_other = |name: &String, schema: &Value| {
            let twin = all.get(name);
            twin.is_some_and(|twin| twin != schema || refers(schema))
        };
        let others = taken.iter().filter(|(name, schema)| is_other(name, schema));
        let renamed = Renamed(others.map(|(name, _)| name.clone()).collect());
        for (name, mut schema) in taken {
            renamed.apply(&mut schema);
            all.insert(renamed.name(&name), schema);
        }
        all.values_mut().for_each(bound);
        all.sort_keys();
        (all, renamed)
    }
}

/// Names that mean something else on the way in.
pub(super) struct Renamed(Vec<String>);

impl Renamed {
    fn name(&self, name: &str) -> String {
        if self.0.iter().any(|other| other == name) {
            return format!("{name}Given");
        }
        name.to_owned()
    }

    /// Lets all references inside say the new names.
    pub(super) fn apply(&self, value: &mut Value) {
        each(value, &mut |object| {
            let Some(Value::String(to)) = object.get_mut("$ref") else {
                return;
            };
            if let Some((place, name)) = to.rsplit_once('/') {
                *to = format!("{place}/{}", self.name(name));
            }
        });
    }
}

/// Calls for each object inside.
fn each(value: &mut Value, call: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            call(object);
            object.values_mut().for_each(|value| each(value, call));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each(value, call)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn refers(schema: &Value) -> bool {
    let mut schema = schema.clone();
    let mut found = false;
    each(&mut schema, &mut |object| {
        found = found || object.contains_key("$ref");
    });
    found
}

/// Says of whole numbers how large they may be.
fn bound(schema: &mut Value) {
    each(schema, &mut |object| {
        let format = object.get("format").and_then(Value::as_str);
        let (least, most) = match format {
            Some("int32") => (json!(i32::MIN), json!(i32::MAX)),
            Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
            Some("uint16") => (json!(0), json!(u16::MAX)),
            Some("uint32") => (json!(0), json!(u32::MAX)),
            Some("uint64") => (json!(0), json!(u64::MAX)),
            Some(_) | None => return,
        };
        object.entry("minimum").or_insert(least);
        object.entry("maximum").or_insert(most);
    });
}
