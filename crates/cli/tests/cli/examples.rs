//! The examples, as a newcomer runs them: the scripts as they are, the real program, a store of
//! their own.

use std::path::Path;
use std::process::Command;

/// What an example prints; it must end well and leave nothing where it was started.
#[track_caller]
fn example(name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
        .join("run.sh");
    let done = Command::new("sh")
        .arg(script)
        .current_dir(folder.path())
        .env("CHARGEHAND", env!("CARGO_BIN_EXE_chargehand"))
        .env("TMPDIR", folder.path())
        .env_remove("CHARGEHAND_STORE")
        .output()
        .unwrap();
    let out = String::from_utf8(done.stdout).unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{out}\n{err}");
    assert_eq!(err, "", "{out}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    // What it says to look at next would be gone.
    assert!(!out.contains("\nnext "), "{out}");
    out
}

#[track_caller]
fn tells(out: &str, lines: &[&str]) {
    let mut rest = out;
    for line in lines {
        let Some((_, after)) = rest.split_once(line) else {
            panic!("“{line}” is not there, or not in order:\n{out}");
        };
        rest = after;
    }
}

// S1-01, S1-04: parallel document processing ships, and runs.
#[test]
fn documents_are_read_in_parallel() {
    tells(
        &example("documents"),
        &[
            "100 texts: 50 positive, 40 negative, 10 neutral",
            "10 texts summarized",
            "110 completed, 0 failed",
        ],
    );
}

// S1-04, S1-86, S1-87: 10 sources, 3 workers and 10 tasks; then 2 workers and 5 tasks on what came out.
#[test]
fn a_pipeline_has_two_stages() {
    tells(
        &example("pipeline"),
        &[
            "10 results",
            "10 records: 10 kept, 0 filtered out",
            "EUR: 6 records, amount 800",
            "USD: 4 records, amount 226",
        ],
    );
}

// S1-04, S1-11, S1-88, S1-89: 50 reports by 10 workers; the 7 that failed are listed, reassigned and
// made, the others not again.
#[test]
fn failed_reports_are_reassigned() {
    tells(
        &example("reports"),
        &[
            "the run failed (exit code 1), as it should",
            "43 completed, 7 failed",
            "7 failed",
            "50 completed, 0 failed",
            "50 departments, 50 reports made",
        ],
    );
}

// S1-04, S1-32, S1-90: each batch shows completed and pending while it runs, adding up at each moment.
#[test]
fn batches_show_live_numbers() {
    let out = example("batches");
    for (batch, jobs) in [(1, 15), (2, 30), (3, 45)] {
        let live = format!("batch {batch}: ");
        let mut between = 0;
        for line in out.lines().filter_map(|line| line.strip_prefix(&live)) {
            let numbers: Vec<u32> = line
                .split(' ')
                .filter_map(|word| word.parse().ok())
                .collect();
            // The run itself may not be there yet.
            assert!(
                numbers == [0, 0] || numbers.iter().sum::<u32>() == jobs,
                "{line}"
            );
            between += u32::from(numbers[0] > 0 && numbers[1] > 0);
        }
        assert!(between > 0, "no look while batch {batch} ran:\n{out}");
        tells(
            &out,
            &[&format!(
                "batch {batch} is done: {jobs} completed, 0 pending"
            )],
        );
    }
}

// S0-72, S0-73: workers for e-mail, WhatsApp and figures ship as a crew that runs, without a key, and with
// nothing that leaves the machine.
#[test]
fn a_campaign_is_run_and_counted() {
    tells(
        &example("outreach"),
        &[
            "c-1 is introduced [1]",
            "[6] analytics_worker: collect_metrics: how our mails do (1 receipt)",
            "[11] whatsapp_worker: send_whatsapp: send c-3 the reminder (1 receipt)",
            "completed",
            "== What was sent (to receiver.py, on this machine)",
            "\"consumer\": \"c-3\", \"message\": \"My cousin said the blue one, is that so?\", \"reason\": \"uncertain\"",
            "\"to\": \"ada@example.org\", \"subject\": \"Ada, 30 days of running\"",
            "\"to\": \"ben@example.org\", \"subject\": \"Still time to join, Ben\"",
            "{\"channel\": \"sms\", \"to\": \"+15005550004\"",
            "{\"channel\": \"whatsapp\", \"to\": \"whatsapp:+15005550001\"",
            "{\"channel\": \"whatsapp\", \"to\": \"whatsapp:+15005550003\"",
            "== Who is where now",
            "== What the crew wanted and did not have",
            "send_linkedin_message",
        ],
    );
}

// A crew of agents, with real tools and answers from a transcript.
// S1-72: without a provider.
#[test]
fn a_support_desk_answers_its_letters() {
    tells(
        &example("support"),
        &[
            "the refund for 4712 was paid on 12 November [2]",
            "[2] clerk: Draft the reply to letter T-2 about order 4712 (1 receipt)",
            "completed",
            "== The replies",
            "deliver it on 23 November",
            "49.90 EUR were paid back",
            "it can still be cancelled",
            "== Letter T-2: what was claimed first had no receipt",
            "turn_1: Dear customer, your refund is surely on its way.",
            "call_1: orders.lookup (the receipt)",
            "turn_3: Dear customer, your return has arrived",
        ],
    );
}
