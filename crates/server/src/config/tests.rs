//! Who wins, what is refused, and what the reference promises.

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with a file of settings, and what else is said.
struct Said {
    folder: TempDir,
    file: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    flags: Vec<Override>,
}

impl Said {
    fn nothing() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            file: None,
            env: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// In `chargehand.toml`.
    fn file(text: impl AsRef<[u8]>) -> Self {
        let said = Self::nothing();
        std::fs::write(said.folder.path().join(FILE_DEFAULT), text).unwrap();
        said
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.push(Override::set(key, value));
        self
    }

    fn load(&self) -> Result<Loaded, Error> {
        Config::load(Sources {
            file: self.file.clone(),
            folder: self.folder.path().to_owned(),
            env: self.env.clone(),
            flags: self.flags.clone(),
        })
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// It is refused; the message, with the folder's name left out.
    #[track_caller]
    fn refused(&self) -> Error {
        let error = self.load().map(|loaded| loaded.config).unwrap_err();
        assert_eq!(error.code, Code::ConfigInvalid, "{error:?}");
        let folder = format!("{}/", self.folder.path().display());
        Error {
            message: error.message.replace(&folder, ""),
            ..error
        }
    }
}

fn origin(loaded: &Loaded, key: &str) -> String {
    loaded.chosen(key).unwrap().origin.to_string()
}

#[test]
fn the_defaults_hold_when_nobody_says_anything() {
    let loaded = Said::nothing().loaded();
    let config = &loaded.config;
    assert_eq!(*config, Config::default());
    assert_eq!(config.listen.to_string(), "127.0.0.1:7420");
    assert_eq!(config.store, Place::Folder(".chargehand".into()));
    assert_eq!(config.tls.files(), None);
    assert_eq!(
        config.limits,
        Limits {
            connections: 1024,
            header_seconds: 10,
            header_bytes: 16 * 1024,
            body_bytes: 8 * 1024 * 1024,
            body_seconds: 30,
            idle_seconds: 75,
            write_stall_seconds: 20,
            tls_seconds: 10,
            wait_seconds: 60,
            drain_seconds: 20,
            streams: 2048,
            stream_events: 1024,
            requests_per_second: None,
            requests_burst: None,
        }
    );
    assert_eq!(config.quotas, Quotas::default());
    assert_eq!(
        (config.log.format, config.log.level.as_str()),
        (logs::Format::Text, "info")
    );
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert_eq!(config.telemetry.service_name, "chargehand");
    assert_eq!((config.workers.local, config.cors.origins.len()), (0, 0));
    assert!(
        loaded
            .provenance
            .iter()
            .all(|chosen| chosen.origin == Origin::Default)
    );
    assert_eq!(loaded.provenance.len(), SETTINGS.len());
}

#[test]
fn each_layer_is_stronger_than_the_one_before() {
    let said = Said::file(
        "listen = \"127.0.0.1:1\"\n\n[limits]\nconnections = 1\nstreams = 1\nbody_bytes = 0x400\n",
    );
    let said = said
        .env("CHARGEHAND_LIMITS_CONNECTIONS", "2")
        .env("CHARGEHAND_LIMITS_STREAMS", "2")
        .env("LIMITS_STREAMS", "9")
        .set("limits.streams", "3");
    let loaded = said.loaded();
    let limits = &loaded.config.limits;
    assert_eq!((limits.stream_events, limits.body_bytes), (1024, 1024));
    assert_eq!((limits.connections, limits.streams), (2, 3));
    let file = said.folder.path().join(FILE_DEFAULT);
    assert_eq!(origin(&loaded, "limits.stream_events"), "default");
    assert_eq!(
        origin(&loaded, "listen"),
        format!("file {}:1", file.display())
    );
    assert_eq!(
        origin(&loaded, "limits.body_bytes"),
        format!("file {}:6", file.display())
    );
    assert_eq!(
        origin(&loaded, "limits.connections"),
        "environment CHARGEHAND_LIMITS_CONNECTIONS"
    );
    assert_eq!(origin(&loaded, "limits.streams"), "flag --set");
    let keys: Vec<&str> = loaded
        .provenance
        .iter()
        .map(|chosen| chosen.setting.key)
        .collect();
    let table: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(keys, table, "the order of the table stays");
}

#[test]
fn the_flag_chooses_the_file_then_the_variable_then_the_folder() {
    let mut said = Said::file("workers.local = 1");
    std::fs::write(said.folder.path().join("b.toml"), "workers.local = 2").unwrap();
    std::fs::write(said.folder.path().join("c.toml"), "workers.local = 3").unwrap();
    let path = |name: &str| said.folder.path().join(name);
    let (b, c, no) = (path("b.toml"), path("c.toml"), path("no.toml"));
    assert_eq!(said.loaded().config.workers.local, 1);
    said = said.env("CHARGEHAND_CONFIG", "");
    assert_eq!(
        said.loaded().config.workers.local,
        1,
        "set to nothing is not set"
    );
    said.env = vec![("CHARGEHAND_CONFIG".into(), b.into())];
    assert_eq!(said.loaded().config.workers.local, 2);
    said.file = Some(c);
    assert_eq!(said.loaded().config.workers.local, 3);

    said.file = Some(no.clone());
    let error = said.load().map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::ConfigMissing);
    assert!(
        error.message.ends_with("no.toml`, which --config names"),
        "{error:?}"
    );
    said.file = None;
    said.env = vec![("CHARGEHAND_CONFIG".into(), no.into())];
    let error = said.load().map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::ConfigMissing);
    assert!(
        error.message.contains("which CHARGEHAND_CONFIG names"),
        "{error:?}"
    );
}

#[test]
fn keys_that_do_not_exist_are_refused_with_what_was_meant() {
    let meant = |key: &str| format!("Did you mean `{key}`?");
    let see = "`chargehand config default` has every setting.".to_owned();
    let cases = [
        (
            "\n  lisetn = \"127.0.0.1:1\"",
            "2:3",
            "lisetn",
            meant("listen"),
        ),
        (
            "[limits]\nconections = 1",
            "2:1",
            "limits.conections",
            meant("limits.connections"),
        ),
        (
            "[limit]\n\nconnections = 1",
            "3:1",
            "limit.connections",
            meant("limits.connections"),
        ),
        ("[limit]", "1:2", "limit", meant("limits")),
        (
            "connections = 1",
            "1:1",
            "connections",
            meant("limits.connections"),
        ),
        (
            "log = { levle = \"info\" }",
            "1:9",
            "log.levle",
            meant("log.level"),
        ),
        ("[log.file]\npath = 1", "1:6", "log.file", see.clone()),
        ("\"é\" = 1", "1:1", "é", see.clone()),
        ("log.\"é\" = 1", "1:5", "log.é", see.clone()),
        ("# é\n'é'.'é' = 1", "2:5", "é.é", see.clone()),
        (
            "aaaaaaaa.bbbbbbbbb.c.d = 1",
            "1:10",
            "aaaaaaaa.bbbbbbbbb",
            see.clone(),
        ),
        ("\"a\\nb\" = 1", "1:1", "a\\nb", see.clone()),
        // The first of several, in the order of the file.
        ("zzzzzz = 1\naaaaaa = 1", "1:1", "zzzzzz", see),
    ];
    for (text, place, key, hint) in cases {
        let error = Said::file(text).refused();
        let message = format!("chargehand.toml:{place}: there is no setting `{key}`");
        assert_eq!((error.message, error.hint), (message, hint), "{text}");
    }
    let error = Said::nothing().set("limits.stream", "1").refused();
    assert_eq!(error.message, "--set: there is no setting `limits.stream`");
    assert_eq!(error.hint, meant("limits.streams"));
    let error = Said::nothing().set(&"x".repeat(1_000_000), "1").refused();
    assert!(error.message.len() < 200, "{error:?}");
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_what_is_allowed() {
    let whole = "Use a whole number from 1 to 65536 (connections).";
    let cases = [
        (
            "limits.connections = \"many\"",
            "1:22: `limits.connections` is the text “many”",
            whole,
        ),
        (
            "limits.connections = \"10\"",
            "1:22: `limits.connections` is the text “10”",
            whole,
        ),
        (
            "limits.connections = -1",
            "1:22: `limits.connections` is -1",
            whole,
        ),
        (
            "limits.connections = 0",
            "1:22: `limits.connections` is 0",
            whole,
        ),
        (
            "limits.connections = 65_537",
            "1:22: `limits.connections` is 65537",
            whole,
        ),
        (
            "limits.connections = 4_294_967_297",
            "1:22: `limits.connections` is 4294967297",
            whole,
        ),
        (
            "limits.connections = 1.5",
            "1:22: `limits.connections` is 1.5",
            whole,
        ),
        (
            "limits.connections = true",
            "1:22: `limits.connections` is true",
            whole,
        ),
        (
            "limits.connections = [1]",
            "1:22: `limits.connections` has something",
            whole,
        ),
        (
            "limits.connections = 2026-01-01",
            "1:22: `limits.connections` is a date",
            whole,
        ),
        (
            "limits.connections.x = 1",
            "`limits.connections` is a section",
            whole,
        ),
        (
            "limits = 3",
            "1:1: `limits` is a section, not a setting",
            "Write `[limits]`",
        ),
        (
            "listen = 7420",
            "1:10: `listen` is 7420",
            "such as 127.0.0.1:7420",
        ),
        (
            "listen = \"localhost\"",
            "`listen` is the text “localhost”",
            "such as 127.0.0.1:7420",
        ),
        (
            "listen = \"\"",
            "1:10: `listen` is empty",
            "such as 127.0.0.1:7420",
        ),
        (
            "store = \"ftp://x\"",
            "1:9: `store` is the text “ftp://x”",
            "memory:",
        ),
        (
            "log.format = \"xml\"",
            "1:14: `log.format` is the text “xml”",
            "Use `text` or `json`.",
        ),
        (
            "log.level = \"inof\"",
            "1:13: `log.level` is the text “inof”",
            "Use `off`, `error`, `warn`",
        ),
        (
            "cors.origins = \"*\"",
            "1:16: `cors.origins` is the text “*”",
            "origins such as",
        ),
        (
            "cors.origins = [\"http://a/\"]",
            "has “http://a/”, which is not an origin",
            "origins",
        ),
        (
            "telemetry.service_name = \"\"",
            "is empty",
            "1 to 128 bytes",
        ),
        (
            "quotas.workers = -2",
            "1:18: `quotas.workers` is -2",
            "or 0 for none",
        ),
        ("listen = ", "1:10: ", "Correct the TOML"),
        (
            "listen = \"a\"\nlisten = \"b\"",
            "2:1: ",
            "Correct the TOML",
        ),
    ];
    for (text, message, hint) in cases {
        let error = Said::file(text).refused();
        assert!(
            error.message.starts_with("chargehand.toml:"),
            "{text}: {error:?}"
        );
        assert!(error.message.contains(message), "{text}: {error:?}");
        assert!(error.hint.contains(hint), "{text}: {error:?}");
    }
    for text in ["", " 1", "+1", "-1", "1e3", "99999999999999999999", "ten"] {
        let error = Said::nothing()
            .env("CHARGEHAND_LIMITS_CONNECTIONS", text)
            .refused();
        let begin = "CHARGEHAND_LIMITS_CONNECTIONS: `limits.connections` is ";
        assert!(
            error.message.starts_with(begin) && error.hint == whole,
            "{error:?}"
        );
        let error = Said::nothing().set("limits.connections", text).refused();
        assert!(
            error.message.starts_with("--set: `limits.connections` is "),
            "{error:?}"
        );
    }
}

#[test]
fn what_a_stronger_layer_hides_is_checked_all_the_same() {
    let said = Said::file("workers.local = \"two\"").set("workers.local", "2");
    assert!(said.refused().message.starts_with("chargehand.toml:1:17: "));
}

#[test]
fn every_range_is_enforced_at_both_ends() {
    for setting in SETTINGS.iter().filter(|setting| !setting.unit.is_empty()) {
        let takes = setting.takes();
        let numbers: Vec<u64> = takes
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let (least, most) = (numbers[0], numbers[1]);
        let none = takes.ends_with("or 0 for none");
        for right in [least, most] {
            Said::nothing()
                .set(setting.key, &right.to_string())
                .loaded();
        }
        if none || least == 0 {
            Said::nothing().set(setting.key, "0").loaded();
        } else {
            Said::nothing()
                .set(setting.key, &(least - 1).to_string())
                .refused();
        }
        let error = Said::nothing()
            .set(setting.key, &(most + 1).to_string())
            .refused();
        assert!(error.hint.contains(setting.unit), "{error:?}");
    }
    let name = |bytes| Said::nothing().set("telemetry.service_name", &"n".repeat(bytes));
    name(domain::limits::NAME_BYTES_MAX).loaded();
    name(domain::limits::NAME_BYTES_MAX + 1).refused();
}

#[test]
fn zero_is_no_limit() {
    let said =
        Said::file("[limits]\nrequests_per_second = 5\nrequests_burst = 9\n[quotas]\nworkers = 3");
    let config = said.loaded().config;
    assert_eq!(config.limits.requests_per_second, NonZeroU32::new(5));
    assert_eq!(
        (config.limits.requests_burst, config.quotas.workers),
        (NonZeroU32::new(9), NonZeroU32::new(3))
    );
    let config = said
        .set("limits.requests_per_second", "0")
        .set("quotas.workers", "0")
        .loaded()
        .config;
    assert_eq!(
        (config.limits.requests_per_second, config.quotas.workers),
        (None, None)
    );
}

#[test]
fn lists_are_lists_in_a_file_and_have_commas_elsewhere() {
    let both = ["https://a.example", "http://localhost:3000"].map(str::to_owned);
    let said = Said::file("[cors]\norigins = [\"https://a.example\", \"http://localhost:3000\"]");
    assert_eq!(said.loaded().config.cors.origins, both);
    let said = said.env(
        "CHARGEHAND_CORS_ORIGINS",
        "https://a.example, http://localhost:3000",
    );
    assert_eq!(said.loaded().config.cors.origins, both);
    assert!(
        said.set("cors.origins", "")
            .loaded()
            .config
            .cors
            .origins
            .is_empty()
    );
    assert_eq!(
        Said::nothing()
            .set("cors.origins", "*")
            .loaded()
            .config
            .cors
            .origins,
        ["*"]
    );
    for wrong in [
        "example.org",
        "https://a/b",
        "https://u@a",
        "file://a",
        "https://A.example",
        "null",
    ] {
        Said::nothing().set("cors.origins", wrong).refused();
    }
}

#[test]
fn tls_needs_both_files_or_none() {
    let said = Said::file("[tls]\ncertificate = \"cert.pem\"");
    let error = said.refused();
    assert_eq!(
        error.message,
        "chargehand.toml:2:15: `tls.certificate` is set, but `tls.key` is not"
    );
    let key = Said::nothing().env("CHARGEHAND_TLS_KEY", "key.pem");
    assert!(
        key.refused()
            .message
            .starts_with("CHARGEHAND_TLS_KEY: `tls.key` is set")
    );
    let config = said.env("CHARGEHAND_TLS_KEY", "key.pem").loaded().config;
    assert_eq!(config.tls, Tls::new("cert.pem", "key.pem"));
    assert_eq!(
        config.tls.files(),
        Some((Path::new("cert.pem"), Path::new("key.pem")))
    );
}

#[test]
fn what_may_be_a_secret_is_not_repeated() {
    const KEY: &str = "NotToBeSeen";
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n");
    let url = format!("https://me:{KEY}@collector:4318");
    let said = [
        Said::nothing().set("tls.key", &pem),
        Said::nothing().env("CHARGEHAND_TLS_KEY", &pem),
        Said::file(format!("tls.key = '''{pem}'''")),
        Said::nothing().set("telemetry.otlp_endpoint", &url),
        Said::file(format!("telemetry.otlp_endpoint = '{url}'")),
        Said::file(format!("password = '{KEY}'")),
        Said::file(format!("listen = '{KEY}")),
        Said::file(format!("listen = '127.0.0.1:1' {KEY}")),
    ];
    for said in said {
        let error = said.refused();
        assert!(!format!("{error:?}").contains(KEY), "{error:?}");
    }
}

#[test]
fn variables_that_look_like_ours_are_warned_about() {
    let warned = |name: &str| Said::nothing().env(name, "1").loaded().warnings.join("\n");
    let meant = |name: &str, known: &str| {
        let text = format!("{name} is not a setting; did you mean {known}?");
        assert_eq!(warned(name), text);
    };
    meant("CHARGEHAND_LISETN", "CHARGEHAND_LISTEN");
    meant(
        "CHARGEHAND_LIMIT_CONNECTIONS",
        "CHARGEHAND_LIMITS_CONNECTIONS",
    );
    meant(
        "CHARGEHAND_REQUESTS_PER_SECOND",
        "CHARGEHAND_LIMITS_REQUESTS_PER_SECOND",
    );
    meant("CHARGEHAND_SERVERS", "CHARGEHAND_SERVER");
    for (other, _) in OTHER_VARIABLES
        .iter()
        .filter(|(name, _)| *name != "CHARGEHAND_CONFIG")
    {
        assert_eq!(warned(other), "");
    }
    for foreign in [
        "CHARGEHAND_BLESS",
        "CHARGEHAND_FAVOURITE_COLOUR",
        "CHARGEHAND_",
        "LISETN",
    ] {
        assert_eq!(warned(foreign), "");
    }
}

#[test]
fn what_is_not_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let mut said = Said::nothing();
    said.env
        .push(("CHARGEHAND_LISTEN".into(), OsString::from_vec(vec![0xff])));
    said.env
        .push((OsString::from_vec(b"CHARGEHAND_\xff".to_vec()), "1".into()));
    assert_eq!(
        said.refused().message,
        "CHARGEHAND_LISTEN: `listen` is not UTF-8"
    );
    assert_eq!(
        Said::file(b"# a\n\xff").refused().message,
        "chargehand.toml:2: not UTF-8"
    );
    let mut folder = Said::nothing();
    folder.file = Some(folder.folder.path().to_owned());
    assert!(folder.refused().message.contains("cannot be read"));
}

#[test]
fn a_file_has_a_largest_size_and_may_nest_as_it_likes() {
    let most = Said::file("#".repeat(FILE_BYTES_MAX));
    assert_eq!(most.loaded().config, Config::default());
    let more = Said::file("#".repeat(FILE_BYTES_MAX + 1));
    assert!(more.refused().message.contains("1048576 bytes"));
    for deep in [
        "a.".repeat(100_000) + "a = 1",
        format!("[{}a]", "a.".repeat(100_000)),
        "[".repeat(100_000),
    ] {
        assert!(Said::file(deep).refused().message.len() < 300);
    }
}

#[test]
fn a_setting_is_said_once_on_the_command_line() {
    let mut said = Said::nothing().set("listen", "127.0.0.1:1");
    said.flags.push(Override::flag("--listen", "127.0.0.1:2"));
    assert_eq!(
        said.refused().message,
        "--listen: `listen` is said already, by --set"
    );
    said.flags.remove(0);
    assert_eq!(origin(&said.loaded(), "listen"), "flag --listen");
}

#[test]
fn every_row_has_a_variable_of_its_own_and_one_section_at_most() {
    let names: std::collections::BTreeSet<String> =
        SETTINGS.iter().map(Setting::environment).collect();
    assert_eq!(names.len(), SETTINGS.len());
    assert!(
        OTHER_VARIABLES
            .iter()
            .all(|(name, _)| !names.contains(*name))
    );
    for setting in SETTINGS {
        assert!(setting.key.matches('.').count() <= 1, "{setting:?}");
        assert!(setting.help.ends_with('.'), "{setting:?}");
        let section = setting.key.split_once('.').map(|(section, _)| section);
        let known = |section| setting::SECTIONS.iter().any(|(name, _)| *name == section);
        assert!(section.is_none_or(known), "{setting:?}");
    }
}

#[test]
fn the_reference_is_a_file_that_changes_nothing() {
    assert_eq!(Said::file(reference()).loaded().config, Config::default());
    let turned_on: String = reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => {
                format!("{setting}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let loaded = Said::file(turned_on).loaded();
    assert_eq!(loaded.config, Config::default());
    let said = |chosen: &Chosen| matches!(chosen.origin, Origin::File { .. });
    assert!(
        loaded.provenance.iter().all(said),
        "every setting stands in it"
    );
}

// S4-104: and the list is a page of the documentation.
#[test]
fn the_reference_names_every_variable_and_is_the_stored_one() {
    let reference = reference();
    let settings = SETTINGS.iter().map(Setting::environment);
    let others = OTHER_VARIABLES.iter().map(|(name, _)| (*name).to_owned());
    for name in settings.chain(others) {
        assert!(reference.contains(&name), "{name}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/chargehand.toml");
    if std::env::var_os("CHARGEHAND_BLESS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == reference,
        "docs/chargehand.toml is out of date; `CHARGEHAND_BLESS=1 cargo test -p chargehand-server \
         reference` writes it"
    );
}
