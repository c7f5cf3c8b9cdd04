//! What small values look like in a document: those that have a form of their
//! own on the wire, written by hand beside how they are read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::api::edit::PairChanges;
use crate::api::number::{Cores, Factor, Pairs, Span, Stamp, Word};
use crate::model::hook::{End, Ends};
use crate::model::price::Money;
use crate::model::quantity::ByteSize;
use crate::model::rate::Rate;

/// Gives a type a name and a schema.
macro_rules! looks_like {
    ($($kind:ty as $name:literal: $schema:expr;)+) => {$(
        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                ($schema)(generator)
            }
        }
    )+};
}

/// Durations, in the units of [`crate::model::quantity`].
pub(super) const DURATION: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

looks_like! {
    Span as "Duration": |_: &mut SchemaGenerator| json_schema!({
        "description": "A duration: digits and a unit (`d`, `h`, `m`, `s`, `ms`), the largest first.",
        "type": "string",
        "minLength": 2,
        "pattern": DURATION,
        "examples": ["250ms", "1m30s"],
    });
    ByteSize as "Size": |_: &mut SchemaGenerator| json_schema!({
        "description": "A number of bytes: digits and one unit, of 1024 (`KiB`) or of 1000 (`KB`).",
        "type": "string",
        "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$",
        "examples": ["64KiB"],
    });
    Rate as "Rate": |_: &mut SchemaGenerator| json_schema!({
        "description": "So many in a time.",
        "type": "string",
        "pattern": "^[0-9]+/([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
        "examples": ["10/1m"],
    });
    Stamp as "Time": |_: &mut SchemaGenerator| json_schema!({
        "description": "A time in UTC, with microseconds.",
        "type": "string",
        "format": "date-time",
    });
    Cores as "Cores": |_: &mut SchemaGenerator| json_schema!({
        "description": "A number of cores such as 1.5, or a share of one such as \"150%\".",
        "anyOf": [
            { "type": "number", "exclusiveMinimum": 0 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%?$" },
        ],
        "examples": [1.5, "150%"],
    });
    Factor as "Factor": |_: &mut SchemaGenerator| json_schema!({
        "description": "A growth factor, with at most two decimals.",
        "anyOf": [
            { "type": "number", "minimum": 1 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,2})?$" },
        ],
        "examples": [2, 1.5],
    });
    Word as "Word": |_: &mut SchemaGenerator| json_schema!({
        "description": "A word, or a whole number.",
        "anyOf": [{ "type": "string" }, { "type": "integer", "minimum": 0 }],
    });
    Money as "Money": |_: &mut SchemaGenerator| json_schema!({
        "description": "An amount in the currency that prices are in.",
        "type": "number",
        "minimum": 0,
        "maximum": 1_000_000,
    });
    Pairs as "Pairs": |_: &mut SchemaGenerator| json_schema!({
        "description": "Names and texts.",
        "type": "object",
        "additionalProperties": { "type": "string" },
    });
    PairChanges as "PairChanges": |_: &mut SchemaGenerator| json_schema!({
        "description": "Names with their new texts; `null` takes one away.",
        "type": "object",
        "additionalProperties": { "type": ["string", "null"] },
    });
    Ends as "Ends": |generator: &mut SchemaGenerator| {
        let list = generator.subschema_for::<Vec<End>>();
        if generator.contract().is_serialize() {
            return list;
        }
        json_schema!({
            "description": "Final states, as a list or as one text with commas.",
            "anyOf": [list, { "type": "string" }],
        })
    };
}
