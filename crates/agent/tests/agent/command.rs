//! A person's own program, behaving and misbehaving.

use std::fs;
use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use agent::command::{CommandLimits, check_program, is_secret, run_program};
use agent::skill::SkillError;
use serde_json::{Value, json};

const LIMITS: CommandLimits = CommandLimits {
    time: Duration::from_secs(20),
    stdout_bytes_max: 64 * 1024,
    stderr_bytes_max: 1024,
};

async fn run(command_line: &str) -> Result<Value, SkillError> {
    run_program(command_line, &json!({"n": 1}), &[], &LIMITS, pending()).await
}

async fn run_for(command_line: &str, time_ms: u64) -> (Result<Value, SkillError>, Duration) {
    let limits = CommandLimits {
        time: Duration::from_millis(time_ms),
        ..LIMITS
    };
    let start = Instant::now();
    let result = run_program(command_line, &json!({}), &[], &limits, pending()).await;
    (result, start.elapsed())
}

#[track_caller]
fn fails(result: Result<Value, SkillError>, code: &str, retryable: bool, said: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.code, error.retryable), (code, retryable), "{error}");
    assert!(error.message.contains(said), "{error}");
}

/// Is a process with this id alive? A zombie is not.
fn is_alive(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn is_gone(file: &Path) -> bool {
    let id = fs::read_to_string(file).unwrap();
    assert!(!id.trim().is_empty());
    for _ in 0..100 {
        if !is_alive(&id) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn the_brief_goes_in_and_the_result_comes_out() {
    assert_eq!(run("cat").await, Ok(json!({"n": 1})));
    assert_eq!(
        run("echo '{\"ok\": true}'; echo note >&2").await,
        Ok(json!({"ok": true}))
    );
}

#[tokio::test]
async fn a_program_need_not_read_a_large_brief() {
    let brief = json!({"text": "x".repeat(1024 * 1024)});
    for program in [
        "echo 1",
        "exec <&-; sleep 0.1; echo 1",
        "head -c 10 >/dev/null; echo 1",
    ] {
        assert_eq!(
            run_program(program, &brief, &[], &LIMITS, pending()).await,
            Ok(json!(1)),
            "{program}"
        );
    }
    let limits = CommandLimits {
        stdout_bytes_max: 2 * 1024 * 1024,
        ..LIMITS
    };
    assert_eq!(
        run_program("cat", &brief, &[], &limits, pending()).await,
        Ok(brief)
    );
}

#[tokio::test]
async fn the_exit_code_decides() {
    fails(
        run("echo 1; echo broken disk >&2; exit 3").await,
        "command.exit",
        true,
        "exit code 3; it said: broken disk",
    );
    fails(
        run("no-such-program-here").await,
        "command.not_found",
        false,
        "127",
    );
    fails(
        run("./no/such/program").await,
        "command.not_found",
        false,
        "127",
    );
    fails(run("/").await, "command.not_executable", false, "126");
    fails(
        run("kill -SEGV $$").await,
        "command.signal",
        true,
        "signal 11",
    );
    fails(
        run("sh -c 'kill -9 $$'; exit $?").await,
        "command.signal",
        true,
        "signal 9",
    );
}

#[tokio::test]
async fn output_must_be_one_json_value() {
    fails(
        run("true").await,
        "command.no_json",
        false,
        "printed nothing",
    );
    fails(run("echo hello").await, "command.no_json", false, "hello");
    fails(
        run("echo 1; echo 2").await,
        "command.no_json",
        false,
        "not one JSON value",
    );
    fails(
        run("printf '\\377'").await,
        "command.no_json",
        false,
        "not one JSON value",
    );
}

#[tokio::test]
async fn a_flood_is_stopped() {
    let start = Instant::now();
    fails(
        run("yes").await,
        "command.too_much_output",
        false,
        "65536 bytes",
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    // Exactly the most is still fine; one more is not, even from a program that ended.
    let digits = |count: usize| format!("head -c {count} /dev/zero | tr '\\0' ' '; printf 7");
    assert_eq!(run(&digits(64 * 1024 - 1)).await, Ok(json!(7)));
    fails(
        run(&digits(64 * 1024)).await,
        "command.too_much_output",
        false,
        "65536",
    );
}

#[tokio::test]
async fn only_the_end_of_standard_error_is_kept() {
    let error = run("yes noise | head -c 5000000 >&2; echo the reason >&2; exit 1")
        .await
        .unwrap_err();
    assert!(error.message.ends_with("the reason"), "{error}");
    assert!(error.message.len() < 1024, "{}", error.message.len());
}

#[tokio::test]
async fn the_time_limit_returns_on_time() {
    let (result, took) = run_for("echo waiting >&2; sleep 60", 300).await;
    fails(
        result,
        "command.timeout",
        true,
        "300 ms and was killed; it said: waiting",
    );
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test]
async fn the_time_limit_kills_grandchildren_that_ignore_signals() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    let script = format!(
        "(trap '' TERM INT HUP; echo $(exec sh -c 'echo $PPID') > {}; while :; do sleep 1; done) & wait",
        id.display()
    );
    let (result, took) = run_for(&script, 500).await;
    fails(result, "command.timeout", true, "");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(is_gone(&id).await);
}

#[tokio::test]
async fn left_over_children_are_killed_after_a_normal_exit() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    let start = Instant::now();
    let result = run(&format!("sleep 60 & echo $! > {}; echo 1", id.display())).await;
    assert_eq!(result, Ok(json!(1)));
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(is_gone(&id).await);
}

#[tokio::test]
async fn a_grandchild_that_escaped_with_the_pipe_does_not_hold_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    let escaped = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 8' & while [ ! -s {0} ]; do sleep 0.01; done",
        id.display()
    );
    let start = Instant::now();
    assert_eq!(run(&format!("{escaped}; echo 1")).await, Ok(json!(1)));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    fs::remove_file(&id).unwrap();
    let (result, took) = run_for(&format!("{escaped}; sleep 60"), 600).await;
    fails(result, "command.timeout", true, "");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn cancelling_kills() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    let script = format!("echo $$ > {}; sleep 60", id.display());
    let soon = tokio::time::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let result = run_program(&script, &json!({}), &[], &LIMITS, soon).await;
    fails(result, "command.cancelled", false, "cancelled");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(is_gone(&id).await);
}

#[tokio::test]
async fn dropping_the_call_kills() {
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    let script = format!("sleep 60 & echo $! > {}; wait", id.display());
    let call = tokio::time::timeout(Duration::from_millis(500), run(&script)).await;
    assert!(call.is_err());
    assert!(is_gone(&id).await);
}

#[tokio::test]
async fn variables_are_given_and_secrets_are_not_inherited() {
    let env = [("MY_API_TOKEN".to_owned(), "given".to_owned())];
    let program = r#"printf '["%s", "%s"]' "$MY_API_TOKEN" "${PATH:+set}""#;
    assert_eq!(
        run_program(program, &json!({}), &env, &LIMITS, pending()).await,
        Ok(json!(["given", "set"]))
    );
    for (name, value) in [
        ("OPENAI_API_KEY", "x"),
        ("APIKEY", "x"),
        ("github_token", "x"),
        ("DB_PASSWORD", "x"),
        ("CLIENT_SECRET_ID", "x"),
        ("DATABASE_URL", "postgres://me:pw@host/db"),
    ] {
        assert!(is_secret(name, value), "{name}");
    }
    for (name, value) in [
        ("PATH", "/bin"),
        ("KEYBOARD", "us"),
        ("HOME", "/home/me"),
        ("SITE", "https://host:80/a@b"),
    ] {
        assert!(!is_secret(name, value), "{name}");
    }
}

#[test]
fn a_program_is_checked_before_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, plain, spaced) = (
        file("good.sh", 0o755),
        file("plain.sh", 0o644),
        file("a b.sh", 0o755),
    );
    for line in [
        good.clone(),
        format!("{good} --flag 'x y'"),
        format!("LANG=C {good}|cat"),
        format!("'{spaced}' x"),
        "cat".to_owned(),
        "cd / && ls".to_owned(),
        "$PROGRAM x".to_owned(),
        "(echo 1)".to_owned(),
        "if true; then echo 1; fi".to_owned(),
    ] {
        assert_eq!(check_program(&line), Ok(()), "{line}");
    }
    for (line, code) in [
        ("  ".to_owned(), "command.empty"),
        ("./no-such.sh".to_owned(), "command.not_found"),
        ("no-such-program-here --x".to_owned(), "command.not_found"),
        ("X=1 no-such-program-here".to_owned(), "command.not_found"),
        (plain, "command.not_executable"),
        (
            dir.path().to_str().unwrap().to_owned(),
            "command.not_executable",
        ),
    ] {
        assert_eq!(check_program(&line).unwrap_err().code, code, "{line}");
    }
}
