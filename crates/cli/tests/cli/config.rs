//! The server's settings as an operator meets them: what holds, who said it, what is refused.

use crate::world::{Done, World};
use serde_json::Value;
use std::path::Path;

/// With variables of the environment.
#[track_caller]
fn run_with(world: &World, env: &[(&str, &str)], args: &[&str]) -> Done {
    let mut command = world.command(args);
    let child = command.envs(env.iter().copied()).spawn();
    crate::world::finish(child.expect("the program starts"), b"")
}

/// The value of a setting, and who said it.
fn setting(document: &Value, key: &str) -> (Value, String) {
    let items = document["items"].as_array().expect("items");
    let item = items.iter().find(|item| item["key"] == key);
    let item = item.unwrap_or_else(|| panic!("no {key} in {document:#}"));
    let from = item["from"].as_str().expect("a text").to_owned();
    (item["value"].clone(), from)
}

#[test]
fn show_says_what_holds_and_who_said_it() {
    let world = World::new();
    world.file(
        "chargehand.toml",
        "# Ours.\nlisten = \"127.0.0.1:1\"\n\n[limits]\nconnections = 16\n\n[log]\nformat = \"json\"\n",
    );
    let env = [("CHARGEHAND_LIMITS_IDLE_SECONDS", "30")];
    let args = [
        "config",
        "show",
        "--listen",
        "0.0.0.0:8080",
        "--set",
        "cors.origins=http://a,http://b",
    ];
    let done = run_with(&world, &env, &args).ended(0);
    assert_eq!(done.err, "");
    let expected = r"
SETTING                     VALUE               FROM
listen                      0.0.0.0:8080        flag --listen
store                       .chargehand         default
tls.certificate             -                   default
tls.key                     -                   default
limits.connections          16                  file chargehand.toml:5
limits.header_seconds       10                  default
limits.header_bytes         16384               default
limits.body_bytes           8388608             default
limits.body_seconds         30                  default
limits.idle_seconds         30                  environment CHARGEHAND_LIMITS_IDLE_SECONDS
limits.write_stall_seconds  20                  default
limits.tls_seconds          10                  default
limits.wait_seconds         60                  default
limits.drain_seconds        20                  default
limits.streams              2048                default
limits.stream_events        1024                default
limits.requests_per_second  0                   default
limits.requests_burst       0                   default
quotas.tasks_open           0                   default
quotas.runs_open            0                   default
quotas.workers              0                   default
log.format                  json                file chargehand.toml:8
log.level                   info                default
telemetry.otlp_endpoint     -                   default
telemetry.service_name      chargehand          default
workers.local               0                   default
cors.origins                http://a, http://b  flag --set
";
    assert!(done.out == expected.trim_start(), "it shows\n{}", done.out);
    assert!(!world.path(".chargehand").exists(), "asking makes nothing");
}

#[test]
fn of_four_layers_the_stronger_wins() {
    let world = World::new();
    let show = |env: &[(&str, &str)], args: &[&str]| {
        let args = [&["config", "show", "--output", "json"], args].concat();
        let done = run_with(&world, env, &args).ended(0);
        setting(&done.document(), "log.level")
    };
    let env = [("CHARGEHAND_LOG_LEVEL", "warn")];
    assert_eq!(show(&[], &[]), ("info".into(), "default".into()));
    world.file("chargehand.toml", "log.level = \"debug\"");
    assert_eq!(
        show(&[], &[]),
        ("debug".into(), "file chargehand.toml:1".into())
    );
    let warn = "environment CHARGEHAND_LOG_LEVEL".to_owned();
    assert_eq!(show(&env, &[]), ("warn".into(), warn));
    let error = ("error".into(), "flag --log-level".into());
    assert_eq!(show(&env, &["--log-level", "error"]), error);

    // Which file: the flag, then the variable, then the folder.
    world.file("a.toml", "\nlog.level = \"trace\"");
    world.file("b.toml", "\n\nlog.level = \"off\"");
    let env = [("CHARGEHAND_CONFIG", "a.toml")];
    assert_eq!(show(&env, &[]), ("trace".into(), "file a.toml:2".into()));
    assert_eq!(
        show(&env, &["--config", "b.toml"]),
        ("off".into(), "file b.toml:3".into())
    );
}

#[test]
fn the_store_is_one_setting_for_all_commands() {
    let world = World::new();
    let show = |env: &[(&str, &str)], args: &[&str]| {
        let done = run_with(&world, env, &[args, &["--output", "json"]].concat()).ended(0);
        setting(&done.document(), "store")
    };
    let env = [("CHARGEHAND_STORE", "b")];
    world.file("chargehand.toml", "store = 'a'");
    assert_eq!(
        show(&[], &["config", "show"]),
        ("a".into(), "file chargehand.toml:1".into())
    );
    assert_eq!(
        show(&env, &["config", "show"]),
        ("b".into(), "environment CHARGEHAND_STORE".into())
    );
    for args in [
        ["config", "show", "--store", "c"],
        ["--store", "c", "config", "show"],
    ] {
        assert_eq!(show(&env, &args), ("c".into(), "flag --store".into()));
    }
}

#[test]
fn what_cannot_be_a_setting_is_refused_with_its_place() {
    let world = World::new();
    world.file("key.toml", "[limits]\n  conections = 5\n");
    world.file("type.toml", "[limits]\nconnections = \"many\"\n");
    world.file("tls.toml", "[tls]\nkey = \"key.pem\"\n");
    world.file("toml.toml", "listen = 127.0.0.1:1\n");
    let cases: [(&[&str], &str, &str); 9] = [
        (
            &["--config", "key.toml"],
            "key.toml:2:3: there is no setting `limits.conections`",
            "Did you mean `limits.connections`?",
        ),
        (
            &["--config", "type.toml"],
            "type.toml:2:15: `limits.connections` is the text “many”",
            "Use a whole number from 1 to 65536 (connections).",
        ),
        (
            &["--config", "tls.toml"],
            "tls.toml:2:7: `tls.key` is set, but",
            "Set both",
        ),
        (
            &["--config", "toml.toml"],
            "toml.toml:1:15: invalid float\n",
            "Correct the TOML",
        ),
        (&["--config", "."], ".: cannot be read", "Name a file"),
        (
            &["--listen", "here"],
            "--listen: `listen` is the text “here”",
            "127.0.0.1:7420",
        ),
        (
            &["--set", "listn=x"],
            "--set: there is no setting `listn`",
            "Did you mean `listen`?",
        ),
        (
            &["--set", "listen=[::1]:1", "--listen", "[::1]:1"],
            "`listen` is said already",
            "Say it once.",
        ),
        (
            &["--store", ""],
            "--store: `store` is empty",
            "a folder's path",
        ),
    ];
    for (args, message, hint) in cases {
        let args = [&["config", "show"], args].concat();
        world
            .run(&args)
            .refused(2, "config.invalid")
            .names(message)
            .names(hint);
    }
    run_with(
        &world,
        &[("CHARGEHAND_WORKERS_LOCAL", "-1")],
        &["config", "show"],
    )
    .refused(2, "config.invalid")
    .names("CHARGEHAND_WORKERS_LOCAL: `workers.local` is the text “-1”");
    world
        .run(&["config", "show", "--config", "no.toml"])
        .refused(2, "config.missing")
        .names("there is no file `no.toml`, which --config names");
    world
        .run(&["config", "show", "--set", "listen"])
        .refused(2, "usage.invalid")
        .names("KEY=VALUE");
}

#[test]
fn a_misspelled_variable_is_a_warning() {
    let world = World::new();
    let env = [
        ("CHARGEHAND_LISTN", "127.0.0.1:1"),
        ("CHARGEHAND_SERVER", "http://a"),
        ("CHARGEHAND_KEY", "k"),
    ];
    let text = "CHARGEHAND_LISTN is not a setting; did you mean CHARGEHAND_LISTEN?";
    let done = run_with(&world, &env, &["config", "show"]).ended(0);
    assert_eq!(done.err, format!("warning: {text}\n"));
    let done = run_with(&world, &env, &["config", "show", "--output", "json"]).ended(0);
    assert_eq!(done.err, "");
    assert_eq!(done.document()["warnings"], serde_json::json!([text]));
}

#[test]
fn default_prints_the_reference_which_is_a_file_of_settings() {
    let world = World::new();
    let reference = world.run(&["config", "default"]).ended(0).out;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chargehand.toml");
    assert_eq!(
        reference,
        std::fs::read_to_string(docs).expect("the reference")
    );
    world.file("chargehand.toml", &reference);
    let shown = world.json(&["config", "show"]);
    let listed = world.json(&["config", "default"]);
    let (shown, listed) = (shown["items"].as_array(), listed["items"].as_array());
    let (shown, listed) = (shown.expect("items"), listed.expect("items"));
    assert_eq!(shown.len(), listed.len());
    for (shown, listed) in shown.iter().zip(listed) {
        assert_eq!(shown["key"], listed["key"]);
        assert_eq!(shown["value"], listed["default"]);
        assert_eq!(shown["from"], "default", "nothing in it is turned on");
    }
}
