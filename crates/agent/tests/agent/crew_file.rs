//! Crew files: what they mean, and every mistake at its place.

use agent::crew::{
    AGENTS_MAX, AgentBudget, Budget, Crew, CrewError, EnvValue, FILE_BYTES_MAX, MISTAKES_MAX,
};
use domain::record::EffectClass;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SMALL: &str = "\
version: 1
name: desk
models: {fast: anthropic/claude-haiku-4-5}
agents:
  clerk: {description: Answers letters., instructions: Be brief.}
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn program(&self, name: &str, script: &str) {
        self.file(name, script);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path().join(name), mode).unwrap();
    }

    fn load(&self, text: impl AsRef<[u8]>) -> Result<Crew, Vec<CrewError>> {
        self.file("crew.yaml", text);
        Crew::load(&self.path().join("crew.yaml"))
    }
}

/// Code, line and column of the mistakes.
fn seen(errors: &[CrewError]) -> Vec<(&str, usize, usize)> {
    let place = |error: &CrewError| {
        error
            .place
            .map_or((0, 0), |place| (place.line, place.column))
    };
    let row = |error| (place(error).0, place(error).1);
    errors
        .iter()
        .map(|error| (error.code, row(error).0, row(error).1))
        .collect()
}

/// The one mistake of this file.
#[track_caller]
fn only(text: &str) -> CrewError {
    let mut errors = Folder::new().load(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    errors.remove(0)
}

/// [`SMALL`] with something added at its end.
fn with(addition: &str) -> String {
    format!("{SMALL}{addition}\n")
}

#[test]
fn a_file_is_read_with_all_that_it_refers_to() {
    let folder = Folder::new();
    folder.program("lookup.sh", "#!/bin/sh\necho 1\n");
    folder.file("data/a.txt", "x");
    folder.file("prompts/researcher.md", "You find things out.");
    let crew = folder
        .load(
            "
version: 1
name: support
models:
  fast: anthropic/claude-haiku-4-5
  local: {model: openai/qwen3, base_url: 'http://127.0.0.1:8000/v1', key: secret://VLLM_KEY, fallback: fast, tokens_max: 2000, temperature: 0.2}
budget: {tokens: 50000, usd: 1.5, wall: 90s}
supervisor: {model: fast}
agents:
  researcher:
    version: 3
    description: Finds out.
    model: local
    instructions_file: prompts/researcher.md
    tools: [files.read, shop.lookup]
    rounds: 5
    budget: {tokens: 20000, usd: 0.25, calls: 7}
    output: {type: object, required: [found]}
tools:
  shop.lookup:
    command: ./lookup.sh --fast
    description: Looks up an order.
    input: {type: object, properties: {order: {type: string}, amount: {type: number}}}
    timeout: 1500ms
    effect: pure
    sensitive: [amount]
    env: {KEY: secret://SHOP, PLAIN: text}
  files: {root: data}
policies: {approve: [shop.lookup]}
",
        )
        .unwrap();
    assert_eq!(crew.name, "support");
    let local = &crew.models["local"];
    assert_eq!(local.model.to_string(), "openai/qwen3");
    assert_eq!(local.fallback.as_deref(), Some("fast"));
    assert_eq!(
        local.key.as_ref().unwrap().variable(),
        "CHARGEHAND_SECRET_VLLM_KEY"
    );
    assert_eq!(
        crew.budget,
        Budget {
            tokens: 50_000,
            usd_micros: 1_500_000,
            wall_ms: 90_000,
            ..Budget::default()
        }
    );
    assert_eq!((crew.supervisor.replans, crew.supervisor.rounds), (3, 20));
    let researcher = &crew.agents["researcher"];
    assert_eq!((researcher.version, researcher.rounds), (3, 5));
    let own = AgentBudget {
        tokens: Some(20_000),
        usd_micros: Some(250_000),
        calls: Some(7),
    };
    assert_eq!(researcher.budget, own);
    assert_eq!(researcher.instructions, "You find things out.");
    let form = serde_json::json!({"type": "object", "required": ["found"]});
    assert_eq!(researcher.output, Some(form));
    assert!(researcher.tools.contains("shop.lookup") && !researcher.tools.contains("files.list"));
    let lookup = &crew.tools["shop.lookup"];
    assert_eq!(
        (lookup.timeout, lookup.effect),
        (Duration::from_millis(1_500), EffectClass::Pure)
    );
    assert!(
        matches!(&lookup.env["KEY"], EnvValue::Secret(key) if key.to_string() == "secret://SHOP")
    );
    assert_eq!(
        crew.files.unwrap().path,
        folder.path().join("data").canonicalize().unwrap()
    );
    assert!(crew.approve.contains("shop.lookup"));
}

// S2-24: no tools unless they are granted. S0-78: tools have 30 s unless they say otherwise.
#[test]
fn what_is_left_out_has_a_default() {
    let crew = Folder::new().load(SMALL).unwrap();
    assert_eq!(crew.budget, Budget::default());
    assert_eq!(crew.supervisor.model, "fast");
    let clerk = &crew.agents["clerk"];
    assert_eq!(
        (clerk.model.as_str(), clerk.version, clerk.rounds),
        ("fast", 1, 12)
    );
    assert!(clerk.budget.is_open());
    assert!(
        clerk.tools.is_empty(),
        "nothing is granted that is not said"
    );
    // A key whose lines are all comments says nothing.
    let crew = Folder::new()
        .load(with("tools:\n  # none yet\nbudget:\npolicies:"))
        .unwrap();
    assert_eq!(crew.budget, Budget::default());
    let tool = "tools: {t: {command: ls, description: d, input: {type: object}}}";
    let crew = Folder::new().load(with(tool)).unwrap();
    assert_eq!(crew.tools["t"].timeout, Duration::from_secs(30));
}

#[test]
fn the_digest_changes_with_anything_that_counts_and_with_nothing_else() {
    let tool = "tools: {t: {command: ./t.sh, description: d, input: {type: object}}}\n";
    let text = SMALL.replace("instructions: Be brief.", "instructions_file: clerk.md") + tool;
    let (one, other) = (Folder::new(), Folder::new());
    for folder in [&one, &other] {
        folder.program("t.sh", "#!/bin/sh\necho 1\n");
        folder.file("clerk.md", "Be brief.");
    }
    let digest = |folder: &Folder, text: &str| folder.load(text).unwrap().digest;
    let first = digest(&one, &text);
    assert_eq!(first.len(), 64);
    assert_eq!(digest(&other, &text), first, "the folder does not count");
    assert_eq!(digest(&one, &format!("# a comment\n{text}")), first);
    assert_ne!(digest(&one, &text.replace("Answers", "Writes")), first);
    let bound = text.replace("instructions_file", "budget: {calls: 3}, instructions_file");
    assert_ne!(digest(&one, &bound), first);
    one.file("clerk.md", "Be long.");
    assert_ne!(digest(&one, &text), first, "instructions count");
    other.program("t.sh", "#!/bin/sh\necho 2\n");
    assert_ne!(digest(&other, &text), first, "programs count");
}

#[test]
fn every_mistake_is_told_at_once_each_at_its_place() {
    let errors = Folder::new()
        .load(
            "version: 1
name: desk
modls: {}
models:
  fast: antropic/x
  b: {model: openai/x, fallback: c}
  c: {model: openai/x, fallback: b, tokens_max: many}
budget: {tokens: 0, wall: 10 minutes}
supervisor: {model: fsat}
agents:
  researcher:
    desciption: x
    instructions: x
    model: fast
    tools: [files.read, http.fetsh, 7]
    rounds: 0
  Clerk: {description: d, model: c, instructions_file: missing.md}
  clerk: {description: d, model: c, instructions: i}
  clerk: {}
tools:
  t:
    command: ./t.sh
    description: d
    input: {type: object, properties: {amount: {type: numbr}}}
    timeout: 2h
    effect: pur
    sensitive: [amuont]
",
        )
        .unwrap_err();
    assert_eq!(
        seen(&errors),
        [
            ("crew.unknown_key", 3, 1),
            ("crew.reference", 5, 9),
            ("crew.cycle", 6, 34),
            ("crew.type", 7, 49),
            ("crew.value", 8, 18),
            ("crew.value", 8, 27),
            ("crew.reference", 9, 21),
            ("crew.missing_key", 11, 3),
            ("crew.unknown_key", 12, 5),
            ("crew.reference", 15, 13),
            ("crew.reference", 15, 25),
            ("crew.type", 15, 37),
            ("crew.value", 16, 13),
            ("crew.name", 17, 3),
            ("crew.path", 17, 56),
            ("crew.duplicate", 19, 3),
            ("crew.path", 22, 14),
            ("crew.schema", 24, 55),
            ("crew.value", 25, 14),
            ("crew.value", 26, 13),
            ("crew.reference", 27, 17),
        ],
        "{errors:#?}"
    );
    let meant = [
        "models",
        "anthropic",
        "fast",
        "description",
        "http.fetch",
        "pure",
        "amount",
    ];
    for meant in meant {
        let hint = format!("Did you mean `{meant}`?");
        assert!(errors.iter().any(|error| error.hint == hint), "{hint}");
    }
    for error in &errors {
        assert!(
            error.hint.len() > 10 && !error.message.is_empty(),
            "{error:#?}"
        );
    }
}

// S0-34: an agent names what it thinks with and where its instructions are; a name that leads nowhere is
// refused at its place, with what was meant.
#[test]
fn an_agent_names_what_it_is_made_of_and_a_wrong_name_is_told() {
    let folder = Folder::new();
    folder.file("clerk.md", "Be brief.");
    let named = |model: &str, instructions: &str| {
        let text = format!(
            "version: 1\nname: desk\nmodels:\n  fast: anthropic/claude-haiku-4-5\nagents:\n  clerk:\n    description: Answers letters.\n    model: {model}\n    instructions_file: {instructions}\n"
        );
        folder.load(text)
    };
    let crew = named("fast", "clerk.md").unwrap();
    assert_eq!(crew.agents["clerk"].instructions, "Be brief.");
    let model = &crew.models[&crew.agents["clerk"].model].model;
    assert_eq!(model.to_string(), "anthropic/claude-haiku-4-5");
    let wrong = named("fsat", "clerk.md").unwrap_err();
    assert_eq!(seen(&wrong), [("crew.reference", 8, 12)], "{wrong:#?}");
    assert!(wrong[0].message.contains("`fsat`"), "{wrong:#?}");
    assert_eq!(wrong[0].hint, "Did you mean `fast`?");
    let wrong = named("fast", "clerk.txt").unwrap_err();
    assert_eq!(seen(&wrong), [("crew.path", 9, 24)], "{wrong:#?}");
    assert!(wrong[0].message.contains("clerk.txt"), "{wrong:#?}");
}

#[test]
fn each_kind_of_mistake_is_refused() {
    let clerk = |keys: &str| SMALL.replace("instructions: Be brief.", keys);
    let fast = |model: &str| SMALL.replace("anthropic/claude-haiku-4-5", model);
    let cases = [
        ("".to_owned(), "crew.type"),
        ("- a\n- b\n".into(), "crew.type"),
        ("a: [1, 2\n".into(), "crew.syntax"),
        ("a: 1\n b: 2\n".into(), "crew.syntax"),
        (SMALL.replace("version: 1", "version: 2"), "crew.value"),
        (SMALL.replace("version: 1", "version: '1'"), "crew.type"),
        (SMALL.replace("name: desk", "name: The Desk"), "crew.value"),
        (SMALL.replace("name: desk\n", ""), "crew.missing_key"),
        (clerk("instructions: ''"), "crew.value"),
        (clerk("rounds: 3"), "crew.missing_key"),
        (
            clerk("instructions: a, instructions_file: b.md"),
            "crew.value",
        ),
        (clerk("instructions: a, rounds: 2001"), "crew.value"),
        (clerk("instructions: a, output: {type: 1}"), "crew.schema"),
        (clerk("instructions: a, budget: 5"), "crew.type"),
        (clerk("instructions: a, budget: {usd: 0}"), "crew.value"),
        (clerk("instructions: a, budget: {tokens: 0}"), "crew.value"),
        (clerk("instructions: a, budget: {tokens: 1.5}"), "crew.type"),
        (
            clerk("instructions: a, budget: {calls: 1000001}"),
            "crew.value",
        ),
        (clerk("instructions: a, budget: {usd: cheap}"), "crew.type"),
        // Time and plans are the run's.
        (
            clerk("instructions: a, budget: {wall: 10m}"),
            "crew.unknown_key",
        ),
        (clerk("instructions: a, model: slow"), "crew.reference"),
        (
            clerk("instructions: a, tools: [files.read]"),
            "crew.reference",
        ),
        (
            clerk("instructions: a, tools: [http.fetch, http.fetch]"),
            "crew.duplicate",
        ),
        (clerk("instructions_file: /etc/hostname"), "crew.path"),
        (clerk("instructions_file: ../crew.yaml"), "crew.path"),
        (clerk("instructions_file: ."), "crew.path"),
        (fast("nowhere/x"), "crew.reference"),
        (fast("claude"), "crew.value"),
        (fast("{model: openai/x, base_url: 'ftp://x'}"), "crew.value"),
        (
            fast("{model: openai/x, base_url: 'http://a:b@x'}"),
            "crew.secret",
        ),
        (fast("{model: openai/x, key: hunter2}"), "crew.secret"),
        (fast("{model: openai/x, fallback: fast}"), "crew.cycle"),
        (
            with("supervisor: {spawn: {agents: 0, tools: []}}"),
            "crew.value",
        ),
        (with("supervisor: {spawn: {agents: 51}}"), "crew.value"),
        (
            with("supervisor: {spawn: {tools: [http.fetch]}}"),
            "crew.missing_key",
        ),
        // Nobody can be granted what only the supervisor and an assistant may do.
        (
            with("supervisor: {spawn: {agents: 1, tools: [delegate]}}"),
            "crew.reference",
        ),
        (
            with("supervisor: {spawn: {agents: 1, model: slow}}"),
            "crew.reference",
        ),
        (with("budget: {usd: 0}"), "crew.value"),
        (with("budget: {calls: -1}"), "crew.value"),
        (with("budget: {wall: 31d}"), "crew.value"),
        (with("budget: {fan_out: 1001}"), "crew.value"),
        (with("tools: {files: {root: nowhere}}"), "crew.path"),
        (with("tools: {files: {root: crew.yaml}}"), "crew.path"),
        (
            with("tools: {T: {command: cat, description: d, input: {type: object}}}"),
            "crew.name",
        ),
        (
            with("tools: {http.fetch: {command: cat, description: d, input: {type: object}}}"),
            "crew.name",
        ),
        (
            with("tools: {t: {command: cat, description: d, input: {type: string}}}"),
            "crew.schema",
        ),
        (
            with(
                "tools: {t: {command: cat, description: d, input: {type: object, $ref: 'http://127.0.0.1:1/x'}}}",
            ),
            "crew.schema",
        ),
        (
            with(
                "tools: {t: {command: cat, description: d, input: {type: object}, output: {type: 1}}}",
            ),
            "crew.schema",
        ),
        (
            with("tools: {t: {command: ' ', description: d, input: {type: object}}}"),
            "crew.value",
        ),
        (
            with("tools: {t: {command: ./crew.yaml, description: d, input: {type: object}}}"),
            "crew.path",
        ),
        (
            with(
                "tools: {t: {command: cat, description: d, input: {type: object}, env: {TOKEN: abc}}}",
            ),
            "crew.secret",
        ),
        (
            with(
                "tools: {t: {command: cat, description: d, input: {type: object}, env: {A: 'secret://a'}}}",
            ),
            "crew.secret",
        ),
        (
            with(
                "tools: {t: {command: cat, description: d, input: {type: object}, env: {A-B: a}}}",
            ),
            "crew.name",
        ),
        (
            with("policies: {approve: [nothing.at_all]}"),
            "crew.reference",
        ),
        (
            SMALL.replace(
                "description: Answers letters.",
                &format!("description: {}", "x".repeat(2_001)),
            ),
            "crew.too_large",
        ),
    ];
    for (text, code) in cases {
        let error = only(&text);
        assert_eq!(error.code, code, "{text}\n{error:#?}");
        assert!(error.place.is_some() && error.hint.len() > 10, "{error:#?}");
    }
}

#[test]
fn instructions_cannot_be_had_from_outside_of_the_folder_not_even_by_a_link() {
    let (folder, outside) = (Folder::new(), Folder::new());
    outside.file("secret.md", "not for the crew");
    symlink(
        outside.path().join("secret.md"),
        folder.path().join("link.md"),
    )
    .unwrap();
    symlink(outside.path(), folder.path().join("away")).unwrap();
    folder.file("inside.md", "for the crew");
    symlink(
        folder.path().join("inside.md"),
        folder.path().join("near.md"),
    )
    .unwrap();
    let text = |file: &str| {
        SMALL.replace(
            "instructions: Be brief.",
            &format!("instructions_file: {file}"),
        )
    };
    for file in ["link.md", "away/secret.md"] {
        let errors = folder.load(text(file)).unwrap_err();
        assert_eq!(seen(&errors), [("crew.path", 5, 61)], "{errors:#?}");
        assert!(errors[0].message.contains("outside"));
    }
    assert_eq!(
        folder.load(text("near.md")).unwrap().agents["clerk"].instructions,
        "for the crew"
    );
}

#[test]
fn a_key_in_the_file_is_refused_and_not_repeated() {
    let key = concat!("sk-", "ant-api03-abcdefghijklmnopqrstuvwxyz");
    let places = [
        SMALL.replace("Be brief.", &format!("Use {key} to log in.")),
        SMALL.replace(
            "anthropic/claude-haiku-4-5",
            &format!("{{model: openai/x, key: {key}}}"),
        ),
        with(&format!("# fine\ndescription: {key}")),
    ];
    for text in places {
        let error = only(&text);
        assert_eq!(error.code, "crew.secret");
        assert!(!format!("{error:?}").contains("abcdefgh"), "{error:#?}");
    }
    // Neither is a password that does not look like one.
    let text = SMALL.replace(
        "anthropic/claude-haiku-4-5",
        "{model: openai/x, kye: 1, key: hunter2}",
    );
    let errors = Folder::new().load(text).unwrap_err();
    assert_eq!(errors.len(), 2);
    assert!(!format!("{errors:?}").contains("hunter2"), "{errors:#?}");
}

#[test]
fn files_are_bounded() {
    let folder = Folder::new();
    let fill = FILE_BYTES_MAX - SMALL.len();
    let exactly = format!("{SMALL}{}", "#".repeat(fill));
    folder.load(&exactly).unwrap();
    let error = &folder.load(exactly + "#").unwrap_err()[0];
    assert_eq!(error.code, "crew.too_large");
    // Agents.
    let crowd = |count: usize| {
        let agents = (0..count).map(|n| format!("  a{n}: {{description: d, instructions: i}}\n"));
        let (head, _) = SMALL.split_once("  clerk").unwrap();
        format!("{head}{}", agents.collect::<String>())
    };
    assert_eq!(
        folder.load(crowd(AGENTS_MAX)).unwrap().agents.len(),
        AGENTS_MAX
    );
    let errors = folder.load(crowd(AGENTS_MAX + 1)).unwrap_err();
    assert_eq!(seen(&errors), [("crew.too_large", 4, 1)], "{errors:#?}");
    // Mistakes.
    let unknown: String = (0..2 * MISTAKES_MAX)
        .map(|n| format!("zzzz{n}: 1\n"))
        .collect();
    let errors = folder.load(with(&unknown)).unwrap_err();
    assert_eq!(errors.len(), MISTAKES_MAX);
}

/// Whatever a file is cut or changed to, it is refused or read, and every mistake has a place in it.
#[test]
fn a_file_that_is_damaged_anywhere_is_told_so() {
    let folder = Folder::new();
    let text = with("budget: {tokens: 5}\npolicies: {approve: [http.fetch]}");
    let damages = [
        "",
        "\t",
        "- ",
        "{",
        "\"",
        ": ",
        "&a *a",
        "!!binary x",
        "? ",
        "é",
        "\u{feff}",
        "---\n",
        "<<: 1",
    ];
    for at in (0..text.len()).step_by(7) {
        for damage in damages {
            let cut = format!("{}{damage}", &text[..at]);
            let inserted = format!("{cut}{}", &text[at..]);
            for text in [cut, inserted] {
                let Err(errors) = folder.load(&text) else {
                    continue;
                };
                let lines = text.lines().count().max(1);
                for error in errors {
                    let place = error.place.unwrap_or_else(|| panic!("{text}\n{error:?}"));
                    assert!((1..=lines + 1).contains(&place.line), "{text}\n{error:?}");
                    assert!(
                        place.column >= 1 && !error.message.is_empty() && !error.hint.is_empty()
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_no_text_file_is_refused() {
    let folder = Folder::new();
    let missing = Crew::load(&folder.path().join("nowhere.yaml")).unwrap_err();
    assert_eq!(
        (missing[0].code, missing[0].place),
        ("crew.unreadable", None)
    );
    assert_eq!(
        Crew::load(folder.path()).unwrap_err()[0].code,
        "crew.unreadable"
    );
    assert_eq!(
        Crew::load(Path::new("/dev/zero")).unwrap_err()[0].code,
        "crew.unreadable"
    );
    let errors = folder.load(b"version: 1\nname: a\xff\n").unwrap_err();
    assert_eq!(seen(&errors), [("crew.syntax", 2, 8)]);
}
