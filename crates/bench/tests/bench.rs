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
