//! The whole run, small: that every figure is there and every task was counted. Never how fast.

use serde_json::Value;
use std::process::Command;

/// Runs the harness quickly and gives its report.
fn report(arguments: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chargehand-bench"))
        .args(["--quick", "--json", "--rounds", "1", "--folder"])
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "its folder is removed");
    serde_json::from_slice(&output.stdout).unwrap()
}

// S4-31: one command measures every figure again.
#[test]
fn a_quick_run_has_every_figure_and_counts_every_task() {
    let report = report(&[]);
    let scenarios = report["scenarios"].as_array().unwrap();
    let find = |name: &str| {
        let found = scenarios.iter().find(|scenario| scenario["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    for name in bench::NAMES {
        let scenario = find(name);
        assert_eq!(scenario["stopped"], false, "{name}");
        let asked = scenario["tasks_asked"].as_u64().unwrap();
        assert!(asked > 0, "{name}");
        assert_eq!(scenario["tasks_counted"], asked, "{name}");
        assert_eq!(scenario["rounds"].as_array().unwrap().len(), 1, "{name}");
    }
    assert_eq!(scenarios.len(), bench::NAMES.len() + 1);
    find("memory_idle");
    for limit in ["sync", "rules", "sqlite"] {
        let limit = &report["limits"][limit];
        assert!(limit["per_second"].as_f64().unwrap() > 0.0);
        // Before the first scenario and after each.
        assert_eq!(
            limit["samples"].as_u64().unwrap() as usize,
            scenarios.len() + 1
        );
    }
    assert!(["quiet", "noisy"].contains(&report["noise"]["verdict"].as_str().unwrap()));
    assert_eq!(report["quick"], true);
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
}

#[test]
fn one_scenario_can_be_asked_for() {
    let report = report(&["chain_10"]);
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 1);
    assert_eq!(scenarios[0]["name"], "chain_10");
}

/// The server's report, quick: shape and counts, and that not one request failed.
#[test]
fn a_quick_run_of_the_server_counts_every_request_and_none_fails() {
    let report = report(&["--server"]);
    let scenarios = report["scenarios"].as_array().unwrap();
    let names: Vec<_> = scenarios.iter().map(|found| &found["name"]).collect();
    assert_eq!(names, bench::SERVER_NAMES);
    for scenario in scenarios {
        let name = scenario["name"].as_str().unwrap();
        assert_eq!(scenario["stopped"], false, "{scenario}");
        assert!(scenario["value"].as_f64().unwrap() > 0.0, "{name}");
        assert_eq!(scenario["tasks_counted"], scenario["tasks_asked"], "{name}");
        if ["server_idle", "binary_size"].contains(&name) {
            continue;
        }
        assert_eq!(scenario["errors"], 0, "{scenario}");
        assert!(scenario["tasks_asked"].as_u64().unwrap() > 0, "{name}");
        assert!(scenario["request_us"]["p99"].as_f64().unwrap() > 0.0);
    }
    let of = |name: &str, field: &str| {
        let found = scenarios.iter().find(|found| found["name"] == name);
        found.unwrap()[field].as_f64().unwrap()
    };
    assert_eq!(of("http_submit", "requests_per_task"), 1.0);
    // A submission, and the report that also claims the next task.
    assert!(of("http_single_op", "requests_per_task") >= 2.0);
    assert!(of("http_batch", "requests_per_task") < 2.0);
    assert!(report["limits"]["echo"]["per_second"].as_f64().unwrap() > 0.0);
    let ratios = |name: &str| {
        let found = scenarios.iter().find(|found| found["name"] == name);
        let ratios = found.unwrap()["ratios"].as_array().unwrap().clone();
        ratios
            .iter()
            .map(|r| r["to"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ratios("http_submit"), ["N in tasks"]);
    // PostgreSQL is measured where it can be, and otherwise it is said why not.
    match report["limits"]["postgres_missing"].as_str() {
        Some(why) => {
            assert!(!why.is_empty());
            assert_eq!(ratios("http_single_op"), ["N in tasks"]);
        }
        None => {
            assert!(report["limits"]["postgres"]["per_second"].as_f64().unwrap() > 0.0);
            assert_eq!(ratios("http_single_op"), ["N in tasks", "Q"]);
        }
    }
}

#[test]
fn a_scenario_of_the_engine_is_not_one_of_the_server() {
    let output = Command::new(env!("CARGO_BIN_EXE_chargehand-bench"))
        .args(["--server", "chain_10"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not a scenario of the server"), "{said}");
}
