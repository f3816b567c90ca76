//! `chargehand skills`.

use crate::error::CliError;
use crate::output::{Output, print_json, table};
use std::process::ExitCode;

pub(crate) fn print(output: Output) -> Result<ExitCode, CliError> {
    let skills = agent::skill::all();
    match output {
        Output::Json => print_json(&serde_json::json!({
            "items": skills
                .iter()
                .map(|skill| serde_json::json!({"name": skill.name(), "summary": skill.summary()}))
                .collect::<Vec<_>>()
        })),
        Output::Text => {
            let row = |skill: &&dyn agent::skill::Skill| {
                vec![skill.name().to_owned(), skill.summary().to_owned()]
            };
            self::print_table(skills.iter().map(row).collect());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(rows: Vec<Vec<String>>) {
    crate::output::print(&table(&["skill", "what it does"], rows));
}
