//! What people see, word for word, so that it cannot change unnoticed. Ids, times and durations are
//! masked; everything else is as it is printed.

use crate::world::{Done, GOAL, World};

/// With ids, instants and durations replaced by what they are.
fn masked(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(masked_line(line));
    }
    lines.join("\n")
}

fn masked_line(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = words[at];
        let bare = word.trim_end_matches([',', ':']);
        let tail = &word[bare.len()..];
        let next = words
            .get(at + 1)
            .map_or("", |next| next.trim_end_matches([',', ':']));
        let is_id = |noun: &str| bare.strip_prefix(noun).is_some_and(|id| id.len() == 26);
        let is_date = bare.len() == 10 && bare.bytes().filter(|byte| *byte == b'-').count() == 2;
        let is_number = !bare.is_empty()
            && bare
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_id("run_") {
            out.push(format!("RUN{tail}"));
        } else if is_id("task_") {
            out.push(format!("TASK{tail}"));
        } else if is_date && next.len() == 8 && next.contains(':') {
            out.push(format!("TIME{tail}"));
            at += 1;
        } else if is_number && ["ms", "s"].contains(&next) {
            out.push("DURATION".to_owned() + &words[at + 1][next.len()..]);
            at += 1;
        } else if bare.ends_with('…')
            && bare.len() > 10
            && bare[..bare.len() - 3]
                .bytes()
                .all(|b| b.is_ascii_hexdigit())
        {
            out.push("HASH…".into());
        } else {
            out.push(word.to_owned());
        }
        at += 1;
    }
    out.join(" ").trim_end().to_owned()
}

#[track_caller]
fn shows(seen: &str, expected: &str) {
    let (seen, expected) = (masked(seen), expected.trim_matches('\n'));
    assert!(seen == expected, "it shows\n{seen}\nand not\n{expected}");
}

/// One worker takes one task after the other, so that the order is the same each time.
fn alone(world: &World) -> Done {
    let args = [
        "run",
        GOAL,
        "--input",
        "examples/reviews",
        "--workers",
        "1",
        "--strategy",
        "round-robin",
    ];
    world.run(&args).ended(0)
}

#[test]
fn the_main_job() {
    let world = World::with_reviews();
    let done = alone(&world);
    shows(
        &done.err,
        r"
plan  text.sentiment — the goal says “sentiment”
      10 items in 10 tasks for 1 worker (round-robin)
run   RUN in .chargehand
  1/10 completed examples/reviews/01-headphones.txt by worker_1 in DURATION
  2/10 completed examples/reviews/02-kettle-leaks.txt by worker_1 in DURATION
  3/10 completed examples/reviews/03-not-good.txt by worker_1 in DURATION
  4/10 completed examples/reviews/04-not-bad.txt by worker_1 in DURATION
  5/10 completed examples/reviews/05-backpack-amazing.txt by worker_1 in DURATION
  6/10 completed examples/reviews/06-jacket-awful.txt by worker_1 in DURATION
  7/10 completed examples/reviews/07-delivery-facts.txt by worker_1 in DURATION
  8/10 completed examples/reviews/08-blender-mixed.txt by worker_1 in DURATION
  9/10 completed examples/reviews/09-tent-after-all.txt by worker_1 in DURATION
  10/10 completed examples/reviews/10-desk-mild.txt by worker_1 in DURATION
  10 completed · 0 failed · DURATION
",
    );
    shows(
        &done.out,
        r"
  positive +0.69  examples/reviews/01-headphones.txt
  negative -0.33  examples/reviews/02-kettle-leaks.txt
  negative -0.15  examples/reviews/03-not-good.txt
  positive +0.67  examples/reviews/04-not-bad.txt
  positive +0.69  examples/reviews/05-backpack-amazing.txt
  negative -0.80  examples/reviews/06-jacket-awful.txt
  neutral  +0.00  examples/reviews/07-delivery-facts.txt
  negative -0.55  examples/reviews/08-blender-mixed.txt
  positive +0.35  examples/reviews/09-tent-after-all.txt
  positive +0.23  examples/reviews/10-desk-mild.txt

10 texts: 5 positive, 4 negative, 1 neutral
mean score: +0.0807 (from -1 to 1)
strongest positive:
  +0.6941  examples/reviews/05-backpack-amazing.txt  “AMAZING backpack!!! Extremely comfortable, really well made, and it survived a very rainy hike without any damage. My…”
  +0.6903  examples/reviews/01-headphones.txt  “I absolutely love these headphones! The sound is rich and clear, and the battery lasts all week. Best purchase I have…”
  +0.6687  examples/reviews/04-not-bad.txt  “I expected little at this price, but the lamp is not bad at all. No problems so far, and the warm light is pleasant.”
strongest negative:
  -0.7968  examples/reviews/06-jacket-awful.txt  “Awful, just awful!!! The zip broke within an hour, the lining smells horrible, and the refund is still missing. I am…”
  -0.5512  examples/reviews/08-blender-mixed.txt  “The blender looks nice and the jug is easy to clean, but the motor is weak and it failed on frozen fruit. I regret…”
  -0.3251  examples/reviews/02-kettle-leaks.txt  “Terrible kettle. It started leaking on the second day, and customer support was rude when I called. A complete waste of…”

RUN completed in DURATION
next  chargehand runs show RUN
      chargehand tasks list --run RUN
",
    );
}

#[test]
fn what_the_commands_after_it_show() {
    let world = World::with_reviews();
    let run = alone(&world).run();
    let out = |args: &[&str]| world.run(args).ended(0).out;
    // Columns are as wide as their widest cell, before it is masked.
    shows(
        &out(&["runs", "list"]),
        r"
RUN                             STATUS     DONE   STARTED              GOAL
RUN  completed  10/10  TIME  Analyze the sentiment of these customer reviews
",
    );
    let shown = out(&["runs", "show", &run]);
    let (head, _) = shown.split_once("\n\n10 texts: ").expect("the result");
    shows(
        head,
        r"
RUN  completed
  goal      Analyze the sentiment of these customer reviews
  started   TIME
  ended     TIME after DURATION

STEP    STATUS  COMPLETED  RUNNING  PENDING  FAILED  CANCELLED
work    done    10         0        0        0       0
result  done
",
    );
    let doctor = out(&["doctor", "--replay"]);
    let doctor: Vec<&str> = doctor
        .lines()
        .filter(|line| !line.starts_with("events "))
        .collect();
    shows(
        &doctor.join("\n"),
        r"
store     .chargehand
file      ok
replay    14 rows compared
The store is sound.
",
    );
    shows(&out(&["resume"]), "Nothing to resume: every run has ended.");
    shows(&out(&["memory", "list"]), "No entries.");
    shows(&out(&["tasks", "list", "--status", "failed"]), "No tasks.");
}

#[test]
fn a_failure() {
    let world = World::new();
    let args = [
        "run",
        "Try it",
        "--worker-command",
        "echo oh dear >&2; exit 3",
    ];
    let one = ["--tasks", "1", "--attempts", "1", "--workers", "1"];
    let done = world.run(&[args.as_slice(), &one].concat()).ended(1);
    shows(
        &done.err,
        r"
plan  command — each task runs `echo oh dear >&2; exit 3`
      1 task for 1 worker (least-loaded)
run   RUN in .chargehand
  0/1 command.exit part 1 of 1 at worker_1: the program failed with exit code 3; it said: oh dear. Its standard error says why; run it by hand with the brief on standard input.
  0/1 failed part 1 of 1 for good: command.exit
  0 completed · 1 failed · DURATION
",
    );
    shows(
        &done.out,
        r"
0 results
without a result: 1 of 1

RUN failed in DURATION: step “work”: 1 of 1 tasks failed: the program failed with exit code 3; it said: oh dear. Its standard error says why; run it by hand with the brief on standard input.
next  chargehand runs show RUN
      chargehand runs retry RUN
      chargehand tasks list --run RUN
",
    );
}

#[test]
fn a_goal_that_nobody_here_can_do() {
    let world = World::with_reviews();
    let done = world.run(&[
        "run",
        "Translate the reviews",
        "--input",
        "examples/reviews",
    ]);
    let first: Vec<&str> = done.err.lines().take(2).collect();
    shows(
        &first.join("\n"),
        r"
error[plan.no_skill]: no offline skill can do what the goal calls “translate”
  help: Name an analysis in the goal, or choose with `--skill NAME`, or bring your own program with `--worker-command`. With `--crew FILE` a model plans freely; `chargehand init` writes such a file. The skills:
",
    );
}
