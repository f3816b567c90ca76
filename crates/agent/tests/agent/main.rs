//! The crate from outside, in one binary: real files, real text, real programs.

mod api_tools;
mod approval;
mod assistant;
mod at_once;
mod boundaries;
mod budget;
mod command;
mod crew;
mod crew_file;
mod input;
mod mcp;
mod mind;
mod missing;
mod model;
mod own_budget;
mod pattern;
mod plan;
mod planning;
mod preemption;
mod recovery;
mod related;
mod requests;
mod results;
mod rights;
mod scale;
mod shell;
mod spawn;
mod speech;
mod split;
mod tool;
mod toolbox;

use agent::input::{Item, Source};
use serde_json::Value;

/// A text item from nowhere in particular.
fn text(content: &str) -> Item {
    Item {
        source: source("t.txt"),
        text: Some(content.to_owned()),
        record: None,
    }
}

/// A record from row 1 of a table.
fn record(record: Value) -> Item {
    let source = Source {
        row: Some(1),
        ..source("t.csv")
    };
    Item {
        source,
        text: None,
        record: Some(record),
    }
}

fn source(file: &str) -> Source {
    Source {
        file: file.to_owned(),
        line: None,
        row: None,
    }
}
