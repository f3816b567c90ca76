//! What becomes an item, and what each unusable input is told.

use std::fs;
use std::path::Path;

use agent::input::{
    self, FILE_BYTES_MAX, ITEM_BYTES_MAX, InputError, InputLimits, Item, LINE_BYTES_MAX,
    read_inputs, read_inputs_within,
};
use serde_json::json;
use tempfile::TempDir;

fn files(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

fn read(dir: &TempDir, names: &[&str]) -> Result<Vec<Item>, InputError> {
    let paths: Vec<String> = names.iter().map(|name| path(dir, name)).collect();
    read_inputs(&paths, &mut "".as_bytes())
}

fn read_one(name: &str, content: &[u8]) -> Result<Vec<Item>, InputError> {
    read(&files(&[(name, content)]), &[name])
}

fn stdin(content: &str) -> Result<Vec<Item>, InputError> {
    read_inputs(&["-".to_owned()], &mut content.as_bytes())
}

fn texts(items: &[Item]) -> Vec<String> {
    items.iter().map(Item::text).collect()
}

fn names(items: &[Item]) -> Vec<&str> {
    items
        .iter()
        .map(|item| {
            Path::new(&item.source.file)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
        })
        .collect()
}

#[track_caller]
fn refused(result: Result<Vec<Item>, InputError>, code: &str, said: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(said), "{error}");
    assert!(!error.hint.is_empty());
}

#[test]
fn a_text_file_is_one_item_and_keeps_the_given_order() {
    let dir = files(&[
        ("b.txt", b"bee"),
        ("a.md", b"# ay\n\nbody\n"),
        ("c.log", b"sea"),
    ]);
    let items = read(&dir, &["b.txt", "a.md", "c.log"]).unwrap();
    assert_eq!(texts(&items), ["bee", "# ay\n\nbody\n", "sea"]);
    assert_eq!(items[0].source.file, path(&dir, "b.txt"));
    assert_eq!((items[0].source.line, items[0].source.row), (None, None));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_leave_no_trace() {
    let items = read_one("a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n").unwrap();
    assert_eq!(texts(&items), ["one\ntwo\n"]);
    let items = read_one("a.csv", b"\xef\xbb\xbftext,n\r\nhi,1\r\n").unwrap();
    assert_eq!(items[0].record, Some(json!({"text": "hi", "n": "1"})));
    let items = read_one(
        "a.jsonl",
        b"\xef\xbb\xbf{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}\r\n",
    )
    .unwrap();
    assert_eq!(
        items
            .iter()
            .map(|item| item.source.line)
            .collect::<Vec<_>>(),
        [Some(1), Some(3)]
    );
}

#[test]
fn json_lines_and_csv_and_json_arrays_are_one_item_per_entry() {
    let items = read_one("a.jsonl", b"{\"n\":1}\n\n\"plain\"\n").unwrap();
    assert_eq!(items[0].record, Some(json!({"n": 1})));
    assert_eq!(
        (items[1].source.line, items[1].text().as_str()),
        (Some(3), "plain")
    );

    let items = read_one(
        "a.csv",
        b"id,review\n1,\"good, really\"\n2,\"two\nlines\"\n",
    )
    .unwrap();
    assert_eq!(
        items.iter().map(|item| item.source.row).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
    assert_eq!(texts(&items), ["good, really", "two\nlines"]);

    let items = read_one("a.csv", b"id;review\n1;fine, thanks\n").unwrap();
    assert_eq!(
        items[0].record,
        Some(json!({"id": "1", "review": "fine, thanks"}))
    );
    let items = read_one("a.tsv", b"id\treview\n007\tok\n").unwrap();
    assert_eq!(items[0].record, Some(json!({"id": "007", "review": "ok"})));

    let items = read_one("a.json", b"[{\"text\":\"x\"}, {\"text\":\"y\"}]").unwrap();
    assert_eq!(items[1].source.row, Some(2));
    assert_eq!(read_one("a.json", b"{\"text\":\n\"x\"}").unwrap().len(), 1);
}

#[test]
fn a_blank_column_gets_a_name() {
    let items = read_one("a.csv", b"id,,\n1,2,3\n").unwrap();
    assert_eq!(
        items[0].record,
        Some(json!({"id": "1", "column_2": "2", "column_3": "3"}))
    );
}

#[test]
fn a_directory_is_read_in_name_order_without_hidden_or_unknown_files() {
    let dir = files(&[
        ("in/b.txt", b"2"),
        ("in/a.txt", b"1"),
        ("in/sub/c.md", b"3"),
        ("in/.hidden.txt", b"x"),
        ("in/.git/d.txt", b"x"),
        ("in/photo.png", b"\0"),
    ]);
    std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("in/loop")).unwrap();
    assert_eq!(texts(&read(&dir, &["in"]).unwrap()), ["1", "2", "3"]);
}

#[test]
fn a_pattern_the_shell_left_alone_is_expanded_in_order() {
    let dir = files(&[
        ("b.txt", b"2"),
        ("a.txt", b"1"),
        ("c.md", b"3"),
        (".h.txt", b"x"),
        ("[1].txt", b"literal"),
    ]);
    assert_eq!(names(&read(&dir, &["?.txt"]).unwrap()), ["a.txt", "b.txt"]);
    assert_eq!(
        names(&read(&dir, &["*.md", "*.txt"]).unwrap()),
        ["c.md", "[1].txt", "a.txt", "b.txt"]
    );
    assert_eq!(
        texts(&read(&dir, &["[1].txt"]).unwrap()),
        ["literal"],
        "an existing name is no pattern"
    );
    refused(read(&dir, &["*.csv"]), "input.no_match", "*.csv");
    refused(read(&dir, &["[a.txt"]), "input.bad_glob", "[a.txt");
}

#[test]
fn what_is_named_twice_is_read_once() {
    let dir = files(&[("a.txt", b"1"), ("b.txt", b"2")]);
    assert_eq!(
        texts(&read(&dir, &["b.txt", ".", "*.txt"]).unwrap()),
        ["2", "1"]
    );
}

#[test]
fn standard_input_is_json_lines_or_one_text() {
    assert_eq!(texts(&stdin("one\ntwo\n").unwrap()), ["one\ntwo\n"]);
    let items = stdin("\n{\"text\":\"a\"}\n{\"text\":\"b\"}\n").unwrap();
    assert_eq!(texts(&items), ["a", "b"]);
    assert_eq!(
        (items[1].source.file.as_str(), items[1].source.line),
        ("-", Some(3))
    );
    refused(
        stdin("{\"text\":\"a\"}\nnope\n"),
        "input.bad_json",
        "line 2 of standard input",
    );
    refused(stdin(" \n"), "input.empty", "standard input");
    let twice = ["-".to_owned(), "-".to_owned()];
    refused(
        read_inputs(&twice, &mut "x".as_bytes()),
        "input.stdin_twice",
        "twice",
    );
}

#[test]
fn no_paths_are_no_items() {
    assert_eq!(read_inputs(&[], &mut "ignored".as_bytes()), Ok(vec![]));
}

#[test]
fn each_unusable_input_has_its_own_code() {
    let dir = files(&[("void/x.png", b"x"), ("afile", b"x")]);
    refused(read(&dir, &["gone.txt"]), "input.not_found", "gone.txt");
    refused(read(&dir, &["void"]), "input.empty", "void");
    refused(
        read(&dir, &["afile/x.txt"]),
        "input.unreadable",
        "afile/x.txt",
    );
    refused(
        read_one("a.txt", b"PK\x03\x04\0\0"),
        "input.binary",
        "byte 4",
    );
    refused(
        read_one("a.txt", b"ok\nnot \xff ok"),
        "input.not_utf8",
        "line 2",
    );
    refused(
        read_one("a.txt", b"\xff\xfeh\0i\0"),
        "input.not_utf8",
        "UTF-16",
    );
    refused(read_one("a.txt", b""), "input.empty", "a.txt");
    refused(read_one("a.txt", b" \n\t\n"), "input.empty", "a.txt");
    refused(
        read_one("a.jsonl", b"{}\n\n{\"a\":\n"),
        "input.bad_json",
        "line 3",
    );
    refused(
        read_one("a.json", b"{\n\"a\" 1}"),
        "input.bad_json",
        "line 2",
    );
    refused(read_one("a.json", b"[]"), "input.empty", "without elements");
    refused(
        read_one("a.csv", b"a,b\n1,2\n3\n"),
        "input.bad_csv",
        "row 2 has 1 cells, the header has 2",
    );
    refused(read_one("a.csv", b"a,b\n1,2,3\n"), "input.bad_csv", "row 1");
    refused(
        read_one("a.csv", b"a,a\n1,2\n"),
        "input.bad_csv",
        "`a` twice",
    );
    refused(read_one("a.csv", b"a,b\n"), "input.empty", "no rows");
}

#[test]
fn an_open_quote_does_not_swallow_rows() {
    let open = b"a,b\n1,x\n2,\"y\n3,z\n";
    refused(
        read_one("a.csv", open),
        "input.bad_csv",
        "a quote opened in row 2",
    );
    refused(
        read_one("a.csv", b"\"a,b\n1,x\n"),
        "input.bad_csv",
        "header",
    );
    assert_eq!(read_one("a.csv", b"a\n1\n\n2").unwrap().len(), 2);
}

/// Root may read everything, so as root there is nothing to refuse.
#[test]
fn a_file_without_permission_is_unreadable() {
    use std::os::unix::fs::PermissionsExt;
    let dir = files(&[("a.txt", b"secret")]);
    let file = dir.path().join("a.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&file).is_err() {
        refused(read(&dir, &["a.txt"]), "input.unreadable", "a.txt");
    }
}

#[test]
fn item_and_line_and_file_sizes_are_bounded() {
    let largest = vec![b'x'; ITEM_BYTES_MAX];
    assert_eq!(read_one("a.txt", &largest).unwrap().len(), 1);
    refused(
        read_one("a.txt", &[&largest[..], b"x"].concat()),
        "input.too_large",
        "one item",
    );

    let line = |bytes: usize| format!("{{}}\n\"{}\"\n", "x".repeat(bytes - 2)).into_bytes();
    assert_eq!(read_one("a.jsonl", &line(LINE_BYTES_MAX)).unwrap().len(), 2);
    refused(
        read_one("a.jsonl", &line(LINE_BYTES_MAX + 1)),
        "input.too_large",
        "line 2",
    );

    let row = |bytes: usize| format!("a\n{}\n", "x".repeat(bytes)).into_bytes();
    assert_eq!(read_one("a.csv", &row(ITEM_BYTES_MAX)).unwrap().len(), 1);
    refused(
        read_one("a.csv", &row(ITEM_BYTES_MAX + 1)),
        "input.too_large",
        "row 1",
    );

    // A sparse file: large to the reader, nothing on the disk.
    let dir = files(&[]);
    let huge = fs::File::create(dir.path().join("huge.txt")).unwrap();
    huge.set_len(FILE_BYTES_MAX as u64 + 1).unwrap();
    refused(read(&dir, &["huge.txt"]), "input.too_large", "one file");
}

#[test]
fn numbers_of_items_bytes_and_directories_are_bounded() {
    let within = |paths: &[String], limits: InputLimits| {
        read_inputs_within(paths, &mut "".as_bytes(), &limits)
    };
    let dir = files(&[
        ("a.jsonl", b"1\n2\n3\n"),
        ("b.txt", b"12345"),
        ("d/d/d.txt", b"x"),
    ]);
    let all = InputLimits::default();

    let lines = [path(&dir, "a.jsonl")];
    assert_eq!(
        within(
            &lines,
            InputLimits {
                items_max: 3,
                ..all
            }
        )
        .unwrap()
        .len(),
        3
    );
    refused(
        within(
            &lines,
            InputLimits {
                items_max: 2,
                ..all
            },
        ),
        "input.too_many",
        "more than 2 items",
    );

    let both = [path(&dir, "a.jsonl"), path(&dir, "b.txt")];
    assert_eq!(
        within(
            &both,
            InputLimits {
                total_bytes_max: 11,
                ..all
            }
        )
        .unwrap()
        .len(),
        4
    );
    refused(
        within(
            &both,
            InputLimits {
                total_bytes_max: 10,
                ..all
            },
        ),
        "input.too_large",
        "one run",
    );

    let deep = [path(&dir, "d")];
    assert_eq!(
        within(
            &deep,
            InputLimits {
                directory_depth_max: 1,
                ..all
            }
        )
        .unwrap()
        .len(),
        1
    );
    refused(
        within(
            &deep,
            InputLimits {
                directory_depth_max: 0,
                ..all
            },
        ),
        "input.too_deep",
        "directories deep",
    );
    assert_eq!(
        (all.items_max, all.directory_depth_max),
        (input::ITEMS_MAX, input::DIRECTORY_DEPTH_MAX)
    );
}

#[test]
fn a_records_text_is_its_text_field_or_all_its_strings() {
    let text = |record| crate::record(record).text();
    assert_eq!(text(json!({"title": "T", "Review": "R", "n": 1})), "R");
    assert_eq!(text(json!({"text": " ", "title": "T"})), "T");
    assert_eq!(text(json!({"a": "x", "n": 1, "z": "y"})), "x\ny");
    assert_eq!(text(json!({"n": 1})), "");
    assert_eq!(text(json!([1])), "");
}

#[test]
fn items_survive_json_and_leave_out_what_they_lack() {
    let item = crate::text("hi");
    let stored = serde_json::to_value(&item).unwrap();
    assert_eq!(stored, json!({"source": {"file": "t.txt"}, "text": "hi"}));
    assert_eq!(serde_json::from_value::<Item>(stored).unwrap(), item);
}
