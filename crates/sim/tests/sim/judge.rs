//! The judge can say no: a true log passes, and each way to doctor it breaks the rule it must.

use serde_json::{Value, json};
use sim::check::{Effect, Evidence, Rule, Told, check, events, pages};
use sim::scenario;
use sim::world::{Climate, Disk, World};

/// What a calm world leaves behind.
fn evidence(name: &str) -> Evidence {
    let n = scenario::ALL
        .iter()
        .position(|(known, _)| *known == name)
        .unwrap();
    let world = World::new(7, &scenario::make(n, 4), Climate::CALM, Disk::memory());
    let evidence = world.run().unwrap().evidence;
    assert_eq!(check(&evidence), [], "{name}");
    evidence
}

/// Changes the events and stores them anew, numbered and chained as they should be.
fn doctored(name: &str, change: impl FnOnce(&mut Vec<Value>)) -> Evidence {
    let mut evidence = evidence(name);
    let mut log = events(&evidence.pages);
    change(&mut log);
    for (n, event) in log.iter_mut().enumerate() {
        event["position"] = json!(n + 1);
    }
    evidence.pages = pages(&log);
    evidence
}

fn broken(evidence: &Evidence) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(evidence)
        .iter()
        .map(|violation| violation.rule)
        .collect();
    rules.dedup();
    rules
}

#[track_caller]
fn breaks(rule: Rule, evidence: &Evidence) {
    let found = broken(evidence);
    assert!(found.contains(&rule), "{rule:?} is kept: {found:?}");
}

/// The first event of this name that fits.
#[track_caller]
fn at(log: &[Value], name: &str, fits: impl Fn(&Value) -> bool) -> usize {
    let found = log
        .iter()
        .position(|e| e["event"][name].is_object() && fits(&e["event"][name]));
    found.unwrap_or_else(|| panic!("no {name} fits"))
}

#[test]
fn a_changed_byte_a_hole_and_a_repeat_break_the_chain() {
    let mut changed = evidence("chains");
    let body = &mut changed.pages[1].body;
    let at = body.iter().position(|byte| *byte == b'w').unwrap();
    body[at] = b'v';
    breaks(Rule::Chain, &changed);

    let mut hole = evidence("chains");
    hole.pages.remove(2);
    breaks(Rule::Chain, &hole);

    let mut repeat = evidence("chains");
    let page = repeat.pages[2].clone();
    repeat.pages.insert(3, page);
    breaks(Rule::Chain, &repeat);
}

#[test]
fn a_lost_or_doubled_submission_is_noticed() {
    let mut lost = evidence("chains");
    lost.told
        .push(Told::Task("ghost".into(), "task_ghost".into()));
    breaks(Rule::Acknowledged, &lost);

    let mut unkept = evidence("chains");
    unkept
        .told
        .push(Told::Result("task_ghost".into(), 1, "worker_1".into()));
    breaks(Rule::Acknowledged, &unkept);

    // The same submission accepted a second time, under another id.
    let doubled = doctored("chains", |log| {
        let mut again = log[at(log, "task.submitted", |_| true)].clone();
        again["event"]["task.submitted"]["task"] = json!("task_again");
        log.push(again);
    });
    breaks(Rule::Acknowledged, &doubled);
}

#[test]
fn a_move_that_a_state_does_not_know_is_noticed() {
    let cancelled = doctored("chains", |log| {
        let done = &log[at(log, "task.completed", |_| true)];
        let task = done["event"]["task.completed"]["lease"]["task"].clone();
        let body = json!({"task": task, "ties": {}, "reason": "late"});
        let late = json!({"at": done["at"], "event": {"task.cancelled": body}});
        log.push(late);
    });
    breaks(Rule::Transition, &cancelled);
}

#[test]
fn a_stale_or_foreign_token_is_noticed() {
    let stale = doctored("chains", |log| {
        let n = at(log, "task.completed", |_| true);
        log[n]["event"]["task.completed"]["lease"]["attempt"] = json!(9);
    });
    breaks(Rule::Fencing, &stale);
    let foreign = doctored("chains", |log| {
        let n = at(log, "task.completed", |_| true);
        log[n]["event"]["task.completed"]["lease"]["worker"] = json!("worker_9");
    });
    breaks(Rule::Fencing, &foreign);
    // A result accepted twice.
    let twice = doctored("chains", |log| {
        let n = at(log, "task.completed", |_| true);
        let again = log[n].clone();
        log.insert(n + 1, again);
    });
    breaks(Rule::Fencing, &twice);
}

#[test]
fn overlapping_leases_and_tokens_used_twice_are_noticed() {
    let overlap = doctored("chains", |log| {
        let n = at(log, "task.assigned", |_| true);
        let mut again = log[n].clone();
        again["event"]["task.assigned"]["lease"]["attempt"] = json!(2);
        log.insert(n + 1, again);
    });
    breaks(Rule::OneLease, &overlap);
    let reused = doctored("retries", |log| {
        let n = at(log, "task.assigned", |body| body["lease"]["attempt"] == 2);
        log[n]["event"]["task.assigned"]["lease"]["attempt"] = json!(1);
    });
    breaks(Rule::OneLease, &reused);
}

#[test]
fn a_step_done_twice_repeated_in_doubt_or_forgotten_is_noticed() {
    let of = |log: &[Value], key: &str, state: &str| {
        let says = |state: &str, said: &Value| said == state || said.get(state).is_some();
        let fits =
            |body: &Value| body["record"]["key"] == key && says(state, &body["record"]["state"]);
        at(log, "record.noted", fits)
    };
    let twice = doctored("retries", |log| {
        let n = of(log, "post", "done");
        let mut again = log[n].clone();
        again["event"]["record.noted"]["record"]["state"]["done"]["output"] = json!("another");
        log.insert(n + 1, again);
    });
    breaks(Rule::Record, &twice);

    let unannounced = doctored("retries", |log| {
        let n = of(log, "post", "intended");
        log.remove(n);
    });
    breaks(Rule::Record, &unannounced);

    // The first attempt failed between intent and outcome; the second goes ahead all the same.
    let repeated = doctored("retries", |log| {
        let fits = |body: &Value| {
            let record = &body["record"];
            let second = body["lease"]["attempt"] == 2 && record["key"] == "post";
            second && record["state"].get("done").is_some()
        };
        let n = at(log, "record.noted", fits);
        log[n]["event"]["record.noted"]["record"]["state"] = json!("intended");
    });
    breaks(Rule::Record, &repeated);

    let mut forgotten = evidence("retries");
    let told = forgotten.told.iter_mut().find_map(|told| match told {
        Told::Steps(_, _, steps) if !steps.is_empty() => Some(steps),
        _ => None,
    });
    told.expect("a second attempt was told of the first")
        .clear();
    breaks(Rule::Record, &forgotten);
}

#[test]
fn effects_without_a_lease_doubled_or_missing_are_noticed() {
    let mut doubled = evidence("fan_out");
    let effect = doubled.effects[0].clone();
    doubled.effects.push(effect.clone());
    breaks(Rule::Effects, &doubled);

    let mut foreign = evidence("fan_out");
    foreign.effects.push(Effect {
        attempt: 9,
        ..effect.clone()
    });
    breaks(Rule::Effects, &foreign);

    let mut missing = evidence("fan_out");
    missing.effects.remove(0);
    breaks(Rule::Effects, &missing);

    // Two attempts that both did it, and the first of them never ended.
    let mut both = doctored("retries", |log| {
        let n = at(log, "attempt.ended", |body| body["lease"]["attempt"] == 1);
        log.remove(n);
    });
    let log = events(&both.pages);
    for attempt in [1, 2] {
        let fits = |body: &Value| body["lease"]["attempt"] == attempt;
        let lease = &log[at(&log, "task.assigned", fits)]["event"]["task.assigned"]["lease"];
        both.effects.push(Effect {
            task: lease["task"].as_str().unwrap().into(),
            attempt,
            worker: lease["worker"].as_str().unwrap().into(),
            at: 0,
        });
    }
    breaks(Rule::Effects, &both);
}

#[test]
fn a_concurrency_key_beyond_its_bound_is_noticed() {
    let beyond = doctored("slots", |log| {
        for event in log {
            if event["event"]["task.submitted"]["spec"]["slot"].is_object() {
                event["event"]["task.submitted"]["spec"]["slot"]["max"] = json!(1);
            }
        }
    });
    breaks(Rule::Slot, &beyond);
}

#[test]
fn a_worker_with_too_much_or_what_it_cannot_do_is_noticed() {
    for (field, value) in [
        ("capacity", json!(1)),
        ("capabilities", json!([])),
        ("queues", json!([])),
    ] {
        let doctored = doctored("pools", |log| {
            for event in log {
                if event["event"]["worker.registered"].is_object() {
                    event["event"]["worker.registered"]["spec"][field] = value.clone();
                }
            }
        });
        breaks(Rule::Worker, &doctored);
    }
    // Nothing goes to the dead.
    let dead = doctored("chains", |log| {
        let n = at(log, "task.assigned", |_| true);
        let worker = log[n]["event"]["task.assigned"]["lease"]["worker"].clone();
        let body = json!({"worker": worker, "reason": "gone"});
        let lost = json!({"at": log[n]["at"], "event": {"worker.lost": body}});
        log.insert(n, lost);
    });
    breaks(Rule::Worker, &dead);
}

#[test]
fn a_gate_that_opens_too_early_is_noticed() {
    for (goal, join) in [
        ("any", json!({"quorum": 3})),
        ("quorum", json!("all")),
        ("first_k", json!({"first_k": 3})),
        ("deadline", json!({"deadline": 900_000})),
    ] {
        let early = doctored("gates", |log| {
            let n = at(log, "run.started", |body| body["goal"] == goal);
            let run = log[n]["event"]["run.started"]["run"].clone();
            log[n]["event"]["run.started"]["graph"]["steps"][1]["gate"]["join"] = join.clone();
            let gate = at(log, "step.started", |body| {
                body["run"] == run && body["step"] == "gate"
            });
            if goal == "deadline" {
                let far = log[gate]["at"].as_u64().unwrap() + 900_000;
                log[gate]["event"]["step.started"]["due"] = json!(far);
            }
        });
        breaks(Rule::Gate, &early);
    }
    let unfinished = doctored("fan_out", |log| {
        let n = at(log, "run.completed", |_| true);
        let end = log.remove(n);
        let first = at(log, "task.completed", |_| true);
        log.insert(first, end);
    });
    breaks(Rule::Gate, &unfinished);
    let forged = doctored("fan_out", |log| {
        let n = at(log, "run.completed", |_| true);
        log[n]["event"]["run.completed"]["result"] = json!("something else");
    });
    breaks(Rule::Gate, &forged);
}

#[test]
fn a_task_before_its_dependency_is_noticed() {
    let early = doctored("chains", |log| {
        let last = at(log, "task.submitted", |body| {
            body["spec"]["metadata"]["label"] == "c"
        });
        let last = log[last]["event"]["task.submitted"]["task"].clone();
        let n = at(log, "task.submitted", |body| {
            body["spec"]["metadata"]["label"] == "a"
        });
        let body = &mut log[n]["event"]["task.submitted"];
        body["spec"]["after"] = json!([last]);
        body["blocked_by"] = json!([last]);
    });
    breaks(Rule::Dependency, &early);
}

#[test]
fn a_retry_too_early_too_late_or_too_often_is_noticed() {
    for change in [-400i64, 90_000] {
        let moved = doctored("retries", |log| {
            let n = at(log, "attempt.ended", |body| body["retry_at"].is_u64());
            let retry_at = log[n]["event"]["attempt.ended"]["retry_at"]
                .as_i64()
                .unwrap();
            log[n]["event"]["attempt.ended"]["retry_at"] = json!(retry_at + change);
        });
        breaks(Rule::Retry, &moved);
    }
    let often = doctored("retries", |log| {
        for event in log {
            if event["event"]["task.submitted"].is_object() {
                event["event"]["task.submitted"]["spec"]["retry"]["attempts"] = json!(1);
            }
        }
    });
    breaks(Rule::Retry, &often);
}

#[test]
fn a_time_limit_that_strikes_too_early_is_noticed() {
    let early = doctored("retries", |log| {
        let n = at(log, "attempt.ended", |body| body["end"] == "failed");
        log[n]["event"]["attempt.ended"]["end"] = json!("timed_out");
    });
    breaks(Rule::Timeout, &early);
}

#[test]
fn a_yield_to_work_that_is_not_urgent_is_noticed() {
    let idle = doctored("priorities", |log| {
        let n = at(log, "task.yield_asked", |_| true);
        let urgent = log[n]["event"]["task.yield_asked"]["urgent"].clone();
        let n = at(log, "task.submitted", |body| body["task"] == urgent);
        log[n]["event"]["task.submitted"]["spec"]["priority"] = json!(-5);
    });
    breaks(Rule::Preemption, &idle);
}

#[test]
fn a_task_from_a_paused_queue_is_noticed() {
    let paused = doctored("pauses", |log| {
        let pause = json!({"at": log[0]["at"], "event": {"queue.paused": {"queue": "default"}}});
        log.insert(0, pause);
    });
    breaks(Rule::Pause, &paused);
}

#[test]
fn an_entry_with_two_holders_is_noticed() {
    let two = doctored("board", |log| {
        let n = at(log, "entry.claimed", |body| body["by"].is_string());
        let mut again = log[n].clone();
        again["event"]["entry.claimed"]["by"] = json!("agent_9");
        log.insert(n + 1, again);
    });
    breaks(Rule::Entry, &two);
}

#[test]
fn a_message_that_is_dealt_with_twice_is_noticed() {
    let twice = doctored("messages", |log| {
        let n = at(log, "message.delivered", |_| true);
        let again = log[n].clone();
        log.insert(n + 1, again);
    });
    breaks(Rule::Message, &twice);
}

#[test]
fn statistics_that_do_not_add_up_are_noticed() {
    for field in ["submitted", "completed", "failed", "attempts", "runs_open"] {
        let mut wrong = evidence("retries");
        wrong.tally[field] = json!(wrong.tally[field].as_u64().unwrap() + 1);
        breaks(Rule::Sum, &wrong);
    }
}

#[test]
fn a_task_that_is_left_over_is_noticed() {
    let held = doctored("chains", |log| {
        let last = log
            .iter()
            .rposition(|e| e["event"]["task.completed"].is_object());
        log.truncate(last.unwrap());
    });
    breaks(Rule::Rest, &held);
    let waiting = doctored("chains", |log| {
        let last = log
            .iter()
            .rposition(|e| e["event"]["task.assigned"].is_object());
        log.truncate(last.unwrap());
    });
    breaks(Rule::Rest, &waiting);
    // One that says why it waits is not left over.
    let paused = doctored("pauses", |log| {
        let n = at(log, "queue.resumed", |_| true);
        log.truncate(n);
    });
    assert!(
        !broken(&paused).contains(&Rule::Rest),
        "{:?}",
        check(&paused)
    );
}
