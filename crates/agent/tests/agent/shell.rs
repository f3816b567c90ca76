//! The shell behind its walls, with commands that try them. Where this machine does not let walls be
//! put up, each test asserts that nothing is run instead.

use agent::crew::{Crew, Shell};
use agent::tool::{BUILT_IN, SHELL_FLOOD_BYTES, SHELL_OUTPUT_BYTES_MAX, ShellTool, Tool, Toolbox};
use domain::record::EffectClass;
use domain::task::Failure;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

async fn run(settings: Shell, line: &str) -> Result<Value, Failure> {
    let tools = Toolbox::new([Arc::new(ShellTool::new(settings)) as Arc<dyn Tool>]).unwrap();
    let granted = ["shell".to_owned()].into();
    let arguments = json!({"command": line});
    tools.call(&granted, "shell", &arguments, "key-1").await
}

/// Whether walls can be put up here; when not, that nothing is run without them.
async fn walls() -> bool {
    let tool = ShellTool::new(Shell::default());
    let Err(why) = tool.available().await else {
        return true;
    };
    // What a person would try by hand has to fail as well, or the kernel has to be too old for root.
    let by_hand = Command::new("unshare")
        .args(["-rmpf", "sh", "-c"])
        .arg("mount -t tmpfs x /mnt && mount -t proc x /proc && echo 301 >/proc/sys/kernel/pid_max")
        .stderr(Stdio::null())
        .status();
    assert!(
        !by_hand.is_ok_and(|status| status.success()),
        "there could be a sandbox, but: {why}"
    );
    println!("no sandbox on this machine: {why}");
    let folder = tempfile::tempdir().unwrap();
    let settings = Shell {
        folder: Some(folder.path().to_owned()),
        write: true,
        ..Shell::default()
    };
    let refused = run(settings, "touch /work/it-ran").await.unwrap_err();
    assert_eq!(refused.code, "tool.unavailable", "{refused:?}");
    assert!(refused.message.contains("sandbox"), "{refused:?}");
    assert!(!folder.path().join("it-ran").exists());
    false
}

fn stdout(ran: &Value) -> &str {
    ran["stdout"].as_str().unwrap().trim()
}

#[tokio::test]
async fn a_command_says_how_it_ended_and_sees_its_folder_only() {
    if !walls().await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("note"), "seven").unwrap();
    let home = tempfile::tempdir().unwrap();
    let private = home.path().join("private");
    std::fs::write(&private, "mine").unwrap();
    std::os::unix::fs::symlink(&private, folder.path().join("link")).unwrap();
    let settings = Shell {
        folder: Some(folder.path().to_owned()),
        ..Shell::default()
    };
    let ran = run(settings.clone(), "pwd; cat note; echo no >&2; exit 3").await;
    assert_eq!(
        ran,
        Ok(json!({"exit": 3, "stdout": "/work\nseven", "stderr": "no\n", "cut": false}))
    );
    let private = private.display().to_string();
    let secret_home = std::env::var("HOME").unwrap_or("/root".into());
    let tries = [
        format!("cat {private}"),
        "cat link".into(),
        format!("ls {secret_home}"),
        "ls /proc/1/root/".into(),
        "cat /etc/shadow".into(),
        "echo x > note".into(),
        "echo x > new".into(),
        "echo x > /usr/bin/x".into(),
        "echo x > /etc/passwd".into(),
        "echo x > /x".into(),
        "echo x > /proc/sys/kernel/core_pattern".into(),
        "mount -o remount,rw /usr".into(),
        "mount -t tmpfs x /tmp".into(),
        "unshare --user --map-root-user true".into(),
        "kill -9 1; sleep 0.1; kill -0 1 && exit 1".into(),
        "chroot /tmp true".into(),
    ];
    for line in tries {
        let ran = run(settings.clone(), &line).await.unwrap();
        assert_ne!(ran["exit"], 0, "{line}: {ran}");
        assert!(!ran.to_string().contains("mine"), "{line}: {ran}");
    }
    // No process, no variable, no capability from outside.
    let ran = run(
        settings.clone(),
        "ls /proc | grep -c '^[0-9]'; env; grep CapEff /proc/self/status",
    )
    .await;
    let ran = ran.unwrap();
    let said = stdout(&ran);
    let (count, rest) = said.split_once('\n').unwrap();
    assert!(count.parse::<u32>().unwrap() < 10, "{said}");
    assert!(!rest.contains("CARGO"), "{said}");
    assert!(rest.ends_with("0000000000000000"), "{said}");
    assert_eq!(
        std::fs::read_to_string(folder.path().join("note")).unwrap(),
        "seven"
    );
    // Scratch is there, and gone the next time.
    let ran = run(settings.clone(), "echo x > /tmp/x; cat /tmp/x")
        .await
        .unwrap();
    assert_eq!(stdout(&ran), "x");
    let ran = run(settings, "ls /tmp").await.unwrap();
    assert_eq!(stdout(&ran), "");
}

#[tokio::test]
async fn only_a_folder_that_may_be_written_to_is() {
    if !walls().await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = Shell {
        folder: Some(folder.path().to_owned()),
        write: true,
        ..Shell::default()
    };
    let ran = run(settings, "echo seven > new; echo x > ../up")
        .await
        .unwrap();
    assert_ne!(ran["exit"], 0);
    let written = std::fs::read_to_string(folder.path().join("new")).unwrap();
    assert_eq!(written, "seven\n");
    assert!(!folder.path().parent().unwrap().join("up").exists());
}

#[tokio::test]
async fn what_lasts_is_not_done_twice() {
    let effect = |write, network| {
        let settings = Shell {
            folder: Some("/tmp".into()),
            write,
            network,
            ..Shell::default()
        };
        ShellTool::new(settings).card().effect
    };
    assert_eq!(effect(false, false), EffectClass::Pure);
    assert_eq!(effect(true, false), EffectClass::AtMostOnce);
    assert_eq!(effect(false, true), EffectClass::AtMostOnce);
}

#[tokio::test]
async fn there_is_no_network_unless_it_was_granted() {
    if !walls().await {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Any of these that this machine has.
    let line = format!(
        "perl -MIO::Socket::INET -e 'exit(IO::Socket::INET->new(\"127.0.0.1:{port}\") ? 0 : 1)' \
         || python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' \
         || bash -c 'echo > /dev/tcp/127.0.0.1/{port}'"
    );
    let ran = run(Shell::default(), &line).await.unwrap();
    assert_ne!(ran["exit"], 0, "{ran}");
    assert!(listener.accept().is_err(), "somebody came through");
    let interfaces = run(Shell::default(), "cat /proc/net/dev").await.unwrap();
    let interfaces = stdout(&interfaces).lines().skip(2).count();
    assert!(interfaces <= 1, "there is the loopback at most");
    let granted = Shell {
        network: true,
        ..Shell::default()
    };
    let ran = run(granted, &line).await.unwrap();
    assert_eq!(ran["exit"], 0, "{ran}");
    assert!(listener.accept().is_ok());
}

#[tokio::test]
async fn memory_is_bounded_for_one_process_and_for_all() {
    if !walls().await {
        return;
    }
    let settings = Shell {
        memory_bytes: 48 << 20,
        ..Shell::default()
    };
    // `tail` has to keep what it will give.
    let line = "head -c 300000000 /dev/zero | tail -c 200000000 | tail -c 1";
    let alone = run(settings.clone(), line).await;
    match &alone {
        Ok(ran) => assert_ne!(ran["stderr"], "", "it was refused memory: {ran}"),
        Err(failure) => assert!(failure.message.contains("48 MiB"), "{failure:?}"),
    }
    let hog = "x=$(head -c 8000000 /dev/zero | tr '\\0' x); sleep 20";
    let many = format!("for i in 1 2 3 4 5 6 7 8 9 10; do ( {hog} ) & done; wait");
    let begun = Instant::now();
    let failure = run(settings, &many).await.unwrap_err();
    assert_eq!(failure.code, "tool.broken");
    assert!(failure.message.contains("48 MiB of memory"), "{failure:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "stopped before its end"
    );
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_gone() {
    if !walls().await {
        return;
    }
    let settings = Shell {
        processes: 32,
        timeout: Duration::from_secs(5),
        ..Shell::default()
    };
    let mark = "sleep 54321.125";
    let line = format!("{mark} & b() {{ b | b & }}; b; wait; sleep 60");
    match run(settings, &line).await {
        // The shell itself may be the one that finds no room for another process, and gives up.
        Ok(ended) => {
            assert_ne!(ended["exit"], 0, "{ended}");
            assert!(
                ended["stderr"].to_string().contains("Cannot fork"),
                "{ended}"
            );
        }
        Err(failure) => assert!(
            ["tool.broken", "tool.timed_out"].contains(&failure.code.as_str()),
            "{failure:?}"
        ),
    }
    assert!(gone(mark).await, "all that it started is gone");
}

#[tokio::test]
async fn a_loop_is_stopped_when_its_processor_time_is_used_up() {
    if !walls().await {
        return;
    }
    let settings = Shell {
        cpu: Duration::from_secs(1),
        timeout: Duration::from_secs(120),
        ..Shell::default()
    };
    for line in [
        "while :; do :; done",
        "(while :; do :; done) & while :; do :; done",
    ] {
        let failure = run(settings.clone(), line).await.unwrap_err();
        assert_eq!(failure.code, "tool.broken");
        assert!(
            failure.message.contains("1000 ms of processor time"),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn what_it_prints_is_cut_and_a_flood_is_stopped() {
    if !walls().await {
        return;
    }
    let bytes = SHELL_OUTPUT_BYTES_MAX + 10;
    let line = format!("head -c {bytes} /dev/zero | tr '\\0' x");
    let ran = run(Shell::default(), &line).await.unwrap();
    assert_eq!(stdout(&ran).len(), SHELL_OUTPUT_BYTES_MAX);
    assert_eq!((&ran["cut"], &ran["exit"]), (&json!(true), &json!(0)));
    for line in ["yes", "yes >&2"] {
        let failure = run(Shell::default(), line).await.unwrap_err();
        assert_eq!(failure.code, "tool.broken");
        let most = format!("{SHELL_FLOOD_BYTES} bytes");
        assert!(failure.message.contains(&most), "{failure:?}");
        assert!(failure.message.len() < 4_000);
    }
    let line = "head -c 100000000 /dev/zero > /tmp/x; ls -s /tmp/x >&2; test -s /tmp/x";
    let ran = run(Shell::default(), line).await.unwrap();
    assert!(ran["stderr"].as_str().unwrap().len() < 1_000, "{ran}");
}

// At the end of its time a tool comes back, and what it started is gone.
#[tokio::test]
async fn at_the_end_of_its_time_nothing_of_it_is_left() {
    if !walls().await {
        return;
    }
    let mark = "sleep 54321.25";
    let settings = Shell {
        timeout: Duration::from_secs(1),
        ..Shell::default()
    };
    let line = format!("echo begun; setsid {mark} & setsid setsid {mark}; {mark}");
    let failure = run(settings.clone(), &line).await.unwrap_err();
    assert_eq!(failure.code, "tool.timed_out");
    assert!(failure.message.contains("begun"), "{failure:?}");
    assert!(gone(mark).await);
    // Neither when it ends before, nor when nobody waits for it any more.
    let ran = run(
        settings.clone(),
        &format!("setsid {mark} >/dev/null 2>&1 &"),
    )
    .await;
    assert_eq!(ran.unwrap()["exit"], 0);
    assert!(gone(mark).await);
    let waiting = tokio::spawn(async move { run(settings, mark).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiting.abort();
    assert!(gone(mark).await);
}

/// Whether no process with this command line is left, after a while at most.
async fn gone(mark: &str) -> bool {
    let mark = mark.replace(' ', "\0");
    for _ in 0..100 {
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        });
        if !left {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

// S2-70: a sandboxed tool that executes programs, Python included.
#[tokio::test]
async fn python_is_executed_where_the_machine_has_it() {
    if !walls().await {
        return;
    }
    let line = "python3 -c 'print(6 * 7)'";
    let has = Command::new("/usr/bin/python3").arg("-V").output().is_ok();
    let ran = run(Shell::default(), line).await.unwrap();
    match has {
        true => assert_eq!(stdout(&ran), "42", "{ran}"),
        false => assert_eq!(ran["exit"], 127, "{ran}"),
    }
}

fn crew(folder: &Path, shell: &str) -> Result<Crew, Vec<agent::crew::CrewError>> {
    let text = format!(
        "version: 1\nname: desk\nmodels: {{fast: anthropic/claude-haiku-4-5}}\nagents:\n  clerk: {{description: Works., instructions: Work., tools: [shell]}}\ntools:\n  shell: {shell}\n"
    );
    let file = folder.join("crew.yaml");
    std::fs::write(&file, text).unwrap();
    Crew::load(&file)
}

#[test]
fn a_crew_file_bounds_the_shell_and_mistakes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let read = crew(
        folder.path(),
        "{root: data, write: true, network: true, memory: 1gb, cpu: 2s, timeout: 1m, processes: 8}",
    );
    let read = read.unwrap();
    let shell = read.shell.clone().unwrap();
    assert_eq!(
        shell.folder,
        Some(folder.path().canonicalize().unwrap().join("data"))
    );
    assert_eq!((shell.memory_bytes, shell.processes), (1 << 30, 8));
    assert_eq!(
        (shell.cpu, shell.timeout),
        (Duration::from_secs(2), Duration::from_secs(60))
    );
    assert!(shell.write && shell.network);
    assert!(Toolbox::of_crew(&read, []).unwrap().card("shell").is_some());
    assert!(BUILT_IN.contains(&"shell"));
    assert_eq!(
        crew(folder.path(), "{}").unwrap().shell,
        Some(Shell::default())
    );
    for (shell, code, place) in [
        ("{root: gone}", "crew.path", (7, 17)),
        ("{write: true}", "crew.value", (7, 18)),
        ("{memory: 1mb}", "crew.value", (7, 19)),
        ("{memory: 512}", "crew.type", (7, 19)),
        ("{cpu: 2h}", "crew.value", (7, 16)),
        ("{processes: 1000}", "crew.value", (7, 22)),
        ("{net: true}", "crew.unknown_key", (7, 11)),
    ] {
        let mistakes = crew(folder.path(), shell).unwrap_err();
        let first = &mistakes[0];
        let at = first.place.map(|at| (at.line, at.column));
        assert_eq!(
            (first.code, at),
            (code, Some(place)),
            "{shell}: {mistakes:?}"
        );
    }
}
