//! Finds the line and column of a value in the file it came from.

use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_path_to_error::{Error, Segment};

use super::{Layer, lookup};

/// The path of a value that could not be used.
pub(super) fn path_of(error: &Error<serde_json::Error>) -> Vec<String> {
    let segment = |segment: &Segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    error.path().iter().filter_map(segment).collect()
}

/// `FILE:LINE:COLUMN: key.key`, as exactly as it can be told.
pub(super) fn describe(layers: &[Layer], path: &[String]) -> String {
    let Some(layer) = layers.iter().rev().find(|layer| lookup(&layer.value, path).is_some()) else {
        return path.join(".");
    };
    let (line, column) = position(&layer.text, path).unwrap_or((1, 1));
    let file = format!("{}:{line}:{column}", layer.name);
    if path.is_empty() { file } else { format!("{file}: {}", path.join(".")) }
}

/// Line and column, from 1, of the value that a path leads to.
fn position(text: &str, path: &[String]) -> Option<(usize, usize)> {
    let mut value: &str = text;
    for key in path {
        value = match serde_json::from_str::<HashMap<&str, &RawValue>>(value) {
            Ok(fields) => fields.get(key.as_str())?.get(),
            Err(_) => {
                serde_json::from_str::<Vec<&RawValue>>(value).ok()?.get(key.parse::<usize>().ok()?)?.get()
            }
        };
    }
    // The piece is borrowed from the text, so that its address tells where it lies.
    let offset = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let before = text.get(..offset)?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((line, column))
}
