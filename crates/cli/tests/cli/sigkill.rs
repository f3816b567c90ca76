//! The proof by SIGKILL: a thousand tasks whose effect is an appended line, the real process killed
//! at random moments, and a checker ([`crate::checker`]) that knows nothing of the product but its log.

use crate::checker::{WORKER, wrong};
use crate::world::{Chance, World, finish, promised};
use std::process::Child;
use std::time::{Duration, Instant};

const TASKS: usize = 1_000;
const KILLS_MAX: u32 = 40;
/// No more kills after this; then it may finish.
const KILLING: Duration = Duration::from_secs(45);

/// Starts the run, and tells its id once it is promised.
fn begin(world: &World, program: &str) -> (Child, String) {
    let args = [
        "run",
        "Append",
        "--input",
        "rows.jsonl",
        "--worker-command",
        program,
        "--workers",
        "4",
    ];
    let mut child = world.start(&args);
    let run = promised(&mut child);
    (child, run)
}

// H-01: a thousand tasks, none lost, none accepted twice, whatever moment the process dies.
#[test]
fn a_thousand_tasks_survive_any_number_of_kills() {
    let world = World::new();
    world.lines("rows.jsonl", TASKS);
    let program = world.program("worker.sh", WORKER);
    let (seed, mut chance) = Chance::told();

    // Killed before it could promise anything: nothing is promised, and nothing is broken.
    for _ in 0..3 {
        let mut child = world.start(&[
            "run",
            "Early",
            "--worker-command",
            &program,
            "--tasks",
            "1000",
        ]);
        std::thread::sleep(Duration::from_millis(chance.below(60)));
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }
    let (mut child, run) = begin(&world, &program);
    let (since, mut kills) = (Instant::now(), 0);
    while kills < KILLS_MAX && since.elapsed() < KILLING {
        std::thread::sleep(Duration::from_millis(chance.below(400)));
        if child.try_wait().expect("it can be asked").is_some() {
            break;
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
        kills += 1;
        child = world.start(&["resume"]);
    }
    let last = finish(child, b"");
    println!("{kills} kills in {:?}", since.elapsed());
    assert_eq!(last.code, 0, "{last:#?}");
    assert!(kills >= 5, "too fast to be killed: {kills}");
    world.run(&["resume"]).ended(0);

    let effects = world.settled("effects");
    let events = world.events();
    let found = wrong(&events, &effects, &[run], TASKS);
    assert!(found.is_empty(), "seed {seed}: {found:#?}");
    let lost = events
        .iter()
        .filter(|event| event["event"]["attempt.ended"]["end"] == "lost")
        .count();
    println!("{} events, {lost} attempts lost", events.len());
    assert!(lost > 0, "no kill ever met an attempt");
    world.is_sound();
}
