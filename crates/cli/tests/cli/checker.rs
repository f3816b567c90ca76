//! The independent checker of the proofs by SIGKILL, and the proof that it finds what is wrong.
//!
//! It reads what `chargehand events` prints and the lines that the programs of the tasks appended,
//! and shares no code with the product. Deliberately absent: anything about order in time between the
//! log and the effects, because a process that was lost may append late.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// One append of one short line, which the system does as a whole.
pub(crate) const WORKER: &str =
    r#"echo "$CHARGEHAND_TASK_ID $CHARGEHAND_ATTEMPT" >> effects; echo 1"#;

/// The checker: reads the log and the effects, and lists what is wrong.
///
/// It shares no code with the product. Its rules: positions have no gap; a task is submitted once;
/// attempts of a task are numbered 1, 2, 3 and one lives at a time; only the living one completes or
/// ends; nothing happens to a completed task; at the end every task is completed; each promised run
/// is there with all of its tasks, so many each; an effect belongs to an attempt that was given out, happens once for
/// it, and a second effect of a task only after a record that the attempt before ended without one.
///
/// That last rule needs no clock of the effects. The second effect is of another attempt, because one
/// attempt has one effect; the other attempt was given out, which the log lets happen only behind the
/// record that the one before ended without a result. Whether the program of an attempt that was
/// lost appends its line before or after that record, or not at all, is its own affair: a process
/// that nobody hears of cannot be called back, it can only be kept from counting.
pub(crate) fn wrong(
    events: &[Value],
    effects: &str,
    promised: &[String],
    tasks_each: usize,
) -> Vec<String> {
    #[derive(Default)]
    struct Task {
        run: String,
        attempts: u64,
        living: Option<u64>,
        completed: Option<u64>,
        unfinished: BTreeSet<u64>,
    }
    let mut wrong = Vec::new();
    let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
    let mut runs: BTreeMap<String, u64> = BTreeMap::new();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (expected, recorded) in (1_u64..).zip(events) {
        if recorded["position"] != expected {
            wrong.push(format!(
                "position {} where {expected} should be",
                recorded["position"]
            ));
        }
        let Some((name, body)) = recorded["event"]
            .as_object()
            .and_then(|event| event.iter().next())
        else {
            wrong.push(format!("{expected} is no event"));
            continue;
        };
        let (id, attempt) = (
            word(&body["lease"]["task"]),
            body["lease"]["attempt"].as_u64().unwrap_or(0),
        );
        let mut task = tasks.get_mut(&id);
        let mut say = |what: &str| {
            wrong.push(format!(
                "{expected} {name}: {what} ({id} attempt {attempt})"
            ))
        };
        match name.as_str() {
            "run.started" => {
                runs.insert(word(&body["run"]), 0);
            }
            "task.submitted" => {
                let run = word(&body["spec"]["of"]["run"]);
                *runs.entry(run.clone()).or_default() += 1;
                let task = Task {
                    run,
                    ..Task::default()
                };
                if tasks.insert(word(&body["task"]), task).is_some() {
                    say("submitted twice");
                }
            }
            "task.assigned" => match &mut task {
                None => say("unknown task"),
                Some(task) if task.completed.is_some() => say("given out after it was completed"),
                Some(task) if task.living.is_some() => say("given out while another attempt lives"),
                Some(task) if task.attempts + 1 != attempt => say("out of turn"),
                Some(task) => (task.attempts, task.living) = (attempt, Some(attempt)),
            },
            "task.completed" => match &mut task {
                Some(task) if task.completed.is_some() => say("completed twice"),
                Some(task) if task.living == Some(attempt) => {
                    (task.living, task.completed) = (None, Some(attempt));
                }
                _ => say("accepted with a stale token"),
            },
            "attempt.ended" => match &mut task {
                Some(task) if task.living == Some(attempt) => {
                    task.living = None;
                    task.unfinished.insert(attempt);
                }
                _ => say("ended, and did not live"),
            },
            "task.failed" | "task.cancelled" => say("a task that was given up"),
            _ => {}
        }
    }
    for (id, task) in &tasks {
        if task.completed.is_none() {
            wrong.push(format!("{id} is not completed"));
        }
        if !runs.contains_key(&task.run) {
            wrong.push(format!("{id} is of no run"));
        }
    }
    for run in promised {
        match runs.get(run) {
            None => wrong.push(format!("{run} was promised, and is lost")),
            Some(count) if *count != tasks_each as u64 => {
                wrong.push(format!("{run} has {count} tasks"))
            }
            Some(_) => {}
        }
    }
    let mut seen = BTreeSet::new();
    for line in effects.lines() {
        let parsed = line
            .split_once(' ')
            .and_then(|(id, attempt)| Some((id, attempt.parse::<u64>().ok()?)));
        let Some((id, attempt)) = parsed else {
            wrong.push(format!("a torn effect: {line}"));
            continue;
        };
        let given = tasks.get(id).is_some_and(|task| {
            task.completed == Some(attempt) || task.unfinished.contains(&attempt)
        });
        if !given {
            wrong.push(format!("an effect of no recorded attempt: {line}"));
        }
        if !seen.insert((id, attempt)) {
            wrong.push(format!("an effect twice in one attempt: {line}"));
        }
    }
    for (id, task) in &tasks {
        if task
            .completed
            .is_some_and(|attempt| !seen.contains(&(id.as_str(), attempt)))
        {
            wrong.push(format!("{id} is completed without its effect"));
        }
    }
    wrong
}

fn event(position: u64, name: &str, body: Value) -> Value {
    json!({"position": position, "at": 1, "event": {name: body}})
}

fn of_attempt(position: u64, name: &str, attempt: u64) -> Value {
    event(
        position,
        name,
        json!({"lease": {"task": "t", "attempt": attempt, "worker": "w"}}),
    )
}

/// A task that was lost once and completed by its second attempt.
fn honest() -> (Vec<Value>, String) {
    let submitted = json!({"task": "t", "spec": {"of": {"run": "r"}}});
    let events = vec![
        event(1, "run.started", json!({"run": "r"})),
        event(2, "task.submitted", submitted),
        of_attempt(3, "task.assigned", 1),
        of_attempt(4, "attempt.ended", 1),
        of_attempt(5, "task.assigned", 2),
        of_attempt(6, "task.completed", 2),
    ];
    (events, "t 1\nt 2\n".into())
}

#[test]
fn the_checker_finds_every_kind_of_lie() {
    let (events, effects) = honest();
    assert_eq!(wrong(&events, &effects, &[], 2), Vec::<String>::new());
    let renumbered = |mut events: Vec<Value>| {
        (1..)
            .zip(&mut events)
            .for_each(|(n, event)| event["position"] = json!(n));
        events
    };
    let with = |at: usize, event: Value| {
        let mut events = events.clone();
        events.insert(at, event);
        renumbered(events)
    };
    let without = |at: usize| {
        let mut events = events.clone();
        events.remove(at);
        renumbered(events)
    };
    let mut gap = events.clone();
    gap.remove(3);
    let lies: [(&str, Vec<Value>, &str); 13] = [
        ("position 5 where 4", gap, &effects),
        ("submitted twice", with(2, events[1].clone()), &effects),
        ("unknown task", without(1), &effects),
        ("while another attempt lives", without(3), &effects),
        (
            "out of turn",
            with(4, of_attempt(0, "task.assigned", 3)),
            &effects,
        ),
        ("completed twice", with(6, events[5].clone()), &effects),
        (
            "stale token",
            with(4, of_attempt(0, "task.completed", 1)),
            &effects,
        ),
        (
            "after it was completed",
            with(6, of_attempt(0, "task.assigned", 3)),
            &effects,
        ),
        ("is not completed", without(5), &effects),
        (
            "given up",
            with(6, event(0, "task.failed", json!({"task": "t"}))),
            &effects,
        ),
        ("of no recorded attempt", events.clone(), "t 1\nt 2\nt 3\n"),
        ("twice in one attempt", events.clone(), "t 1\nt 2\nt 2\n"),
        ("without its effect", events.clone(), "t 1\n"),
    ];
    for (what, events, effects) in lies {
        let found = wrong(&events, effects, &[], 2);
        assert!(
            found.iter().any(|found| found.contains(what)),
            "“{what}” is not in {found:?}"
        );
    }
    let lost = wrong(&events, &effects, &["gone".into()], 2);
    assert!(
        lost.iter()
            .any(|found| found.contains("gone was promised, and is lost")),
        "{lost:?}"
    );
    let short = wrong(&events, &effects, &["r".into()], 2);
    assert!(
        short.iter().any(|found| found.contains("r has 1 tasks")),
        "{short:?}"
    );
    assert!(
        wrong(&events, "t 1\nt 2\nt", &[], 2)
            .iter()
            .any(|found| found.contains("torn"))
    );
}
