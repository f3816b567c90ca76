//! One crash, at every place where one can be: the outcome is that of a world without it.

use sim::scenario::{self, Scenario};
use sim::world::{Climate, Crash, Disk, Report, World};

const SEED: u64 = 42;
/// Small: a crash point is a world of its own.
const SIZE: u64 = 3;

fn go(scenario: &Scenario, crash: Option<Crash>) -> Report {
    let told = format!("seed={SEED} scenario={} crash={crash:?}", scenario.name);
    let mut world = World::new(SEED, scenario, Climate::CALM, Disk::memory());
    if let Some(crash) = crash {
        world = world.crashing(crash);
    }
    let report = world
        .run()
        .unwrap_or_else(|error| panic!("{told}: {error}"));
    let first = report.violations.first();
    assert!(first.is_none(), "{told}: {}", first.unwrap());
    report
}

/// Every scenario with a number that leaves this rest of two.
fn crash_everywhere(rest: usize) {
    for n in (0..scenario::ALL.len()).filter(|n| n % 2 == rest) {
        let scenario = scenario::make(n, SIZE);
        let calm = go(&scenario, None);
        for commit in 1..=calm.commits {
            for crash in [
                Crash::Before(commit),
                Crash::After(commit),
                Crash::Between(commit),
            ] {
                let report = go(&scenario, Some(crash));
                assert!(
                    report.lives >= 2 || commit + 3 > calm.commits,
                    "{crash:?} did not happen"
                );
                assert_eq!(
                    report.ends, calm.ends,
                    "seed={SEED} scenario={} crash={crash:?}",
                    scenario.name
                );
            }
        }
        println!("{}: {} crash points", scenario.name, 3 * calm.commits);
    }
}

// H-01, S3-21, S3-135: a crash between any two commits changes nothing of what comes out.
// S3-20: what every step has done is kept.
#[test]
fn a_crash_between_any_two_commits_changes_no_outcome_first_half() {
    crash_everywhere(0);
}

// H-01, S3-21, S3-135: the other scenarios, the pipeline among them.
// S3-20: what every step has done is kept.
#[test]
fn a_crash_between_any_two_commits_changes_no_outcome_second_half() {
    crash_everywhere(1);
}
