//! The lines of `stream-json`: the session, events, the result.

use protocol::Event;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::commands::SessionLine;
use crate::outcome::RunResult;

/// One line.
#[derive(JsonSchema)]
#[schemars(title = "A line of `ml-intern --output-format stream-json`")]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Line<'a> {
    Session(SessionLine<'a>),
    Result(RunResult<'a>),
    Event(Event),
}

/// The JSON Schema of a line.
pub(crate) fn line() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Line<'_>>()
}
