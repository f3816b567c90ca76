//! Which test proves which row: ids attached to tests, found in the source.
//!
//! A citation belongs to the next test function below its comment or attribute
//! block, or to the test function it stands in. Whatever stands elsewhere, or
//! on a test that is ignored, proves nothing. This errs on the strict side: a
//! blank line detaches a comment, and the row then shows as open.

use crate::ids::{Mention, mentions};
use crate::rust::{Kind, Token, tokens};

/// A test or example and the rows it names.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Proof {
    /// Where to look: the line of the function, or of the example's head.
    pub(crate) line: usize,
    /// The function's name, or `example`.
    pub(crate) name: String,
    pub(crate) mentions: Vec<Mention>,
}

/// What the file at `path` proves. Only tests and examples can. `suite` is the text of the whole
/// suite that the file belongs to, when it is part of one: the list of its cases is there.
pub(crate) fn proofs(path: &str, text: &str, suite: Option<&str>) -> Vec<Proof> {
    let mut proofs = Vec::new();
    if path.ends_with(".rs") && can_prove(path) {
        proofs.extend(in_tests(text, suite));
    }
    if is_example(path) {
        proofs.extend(in_head(text));
    }
    proofs
}

/// Whether a citation in the file at `path` is meant to prove something.
pub(crate) fn can_prove(path: &str) -> bool {
    let mut parts = path.split('/');
    match parts.next() {
        Some("xtask") => path.ends_with(".rs"),
        Some("crates") => path.ends_with(".rs") && matches!(parts.nth(1), Some("src" | "tests")),
        _ => is_example(path),
    }
}

fn is_example(path: &str) -> bool {
    path.starts_with("examples/") && !path.ends_with(".md")
}

/// A conformance suite is made of functions that one macro turns into tests
/// for each backend; they carry no test attribute themselves. This is the place
/// of the suite that the file at `path` is part of.
pub(crate) fn suite(path: &str) -> Option<&str> {
    let mut end = 0;
    for part in path.split('/') {
        if part.trim_end_matches(".rs") == "conformance" {
            return Some(&path[..end]);
        }
        end += part.len() + 1;
    }
    None
}

/// What the comment at the top of an example names.
fn in_head(text: &str) -> Option<Proof> {
    let comment = |line: &&str| {
        let line = line.trim_start();
        line.is_empty()
            || ["//", "#", "/*", "*", "--", "\"\"\""]
                .iter()
                .any(|m| line.starts_with(m))
    };
    let head: Vec<&str> = text.lines().take_while(comment).collect();
    let mentions = mentions(&head.join("\n"));
    (!mentions.is_empty()).then(|| Proof {
        line: 1,
        name: "example".into(),
        mentions,
    })
}

/// The comments and attributes that lead up to an item.
#[derive(Default)]
struct Block {
    mentions: Vec<Mention>,
    line_last: usize,
    is_test: bool,
    is_ignored: bool,
}

impl Block {
    /// A blank line detaches the comments above it, but not an attribute.
    fn reach(&mut self, token: &Token) {
        if token.line > self.line_last + 1 {
            self.mentions.clear();
        }
        self.line_last = token.line_last();
    }

    fn attribute(&mut self, attribute: &[Token]) {
        let path = attribute
            .iter()
            .skip(2)
            .take_while(|t| t.kind == Kind::Word || t.is(":"));
        match path.filter(|token| token.kind == Kind::Word).last() {
            Some(name) if name.is("test") => self.is_test = true,
            Some(name) if name.is("ignore") => self.is_ignored = true,
            _ => {}
        }
    }
}

fn in_tests(text: &str, suite: Option<&str>) -> Vec<Proof> {
    let tokens = tokens(text);
    let cases = suite.map(crate::rust::tokens).unwrap_or_default();
    let mut proofs = Vec::new();
    let mut block = Block::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text {
            _ if token.kind == Kind::Comment => {
                block.reach(token);
                block.mentions.extend(said(token));
                at += 1;
            }
            "#" if tokens.get(at + 1).is_some_and(|next| next.is("[")) => {
                let end = close(&tokens, at + 1);
                block.reach(token);
                block.attribute(&tokens[at..end]);
                block.mentions.extend(tokens[at..end].iter().flat_map(said));
                block.line_last = tokens[end - 1].line_last();
                at = end;
            }
            "pub" | "async" | "const" => at += 1,
            "(" if at > 0 && tokens[at - 1].is("pub") => at = close(&tokens, at),
            "fn" => {
                block.reach(token);
                let Block {
                    mentions,
                    is_test,
                    is_ignored,
                    ..
                } = std::mem::take(&mut block);
                at += 1;
                let Some(name) = tokens.get(at).filter(|name| name.kind == Kind::Word) else {
                    continue;
                };
                // A case of a suite counts once something names it to run it.
                let is_case = cases.iter().filter(|token| token.is(name.text)).count() > 1;
                if (is_test || is_case) && !is_ignored {
                    let end = function_end(&tokens, at);
                    let inside = tokens[at..end].iter().flat_map(said);
                    let mentions: Vec<_> = mentions.into_iter().chain(inside).collect();
                    if !mentions.is_empty() {
                        proofs.push(Proof {
                            line: name.line,
                            name: name.text.into(),
                            mentions,
                        });
                    }
                    at = end;
                }
            }
            _ => {
                block = Block::default();
                at += 1;
            }
        }
    }
    proofs
}

/// The mentions in a comment or string, with their lines in the file.
fn said(token: &Token) -> Vec<Mention> {
    if !matches!(token.kind, Kind::Comment | Kind::Text) {
        return Vec::new();
    }
    let mut mentions = mentions(token.text);
    for mention in &mut mentions {
        mention.line += token.line - 1;
    }
    mentions
}

/// The index after the bracket that closes the one at `open`.
fn close(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        if ["(", "[", "{"].iter().any(|mark| token.is(mark)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|mark| token.is(mark)) {
            depth -= 1;
            if depth == 0 {
                return index + 1;
            }
        }
    }
    tokens.len()
}

/// The index after the body of the function whose name is at `at`.
fn function_end(tokens: &[Token], at: usize) -> usize {
    let mut index = at;
    while let Some(token) = tokens.get(index) {
        match token.text {
            "(" | "[" if token.kind == Kind::Mark => index = close(tokens, index),
            "{" if token.kind == Kind::Mark => return close(tokens, index),
            ";" if token.kind == Kind::Mark => return index + 1,
            _ => index += 1,
        }
    }
    tokens.len()
}

/// See `ids`: `§` stands for the leading letter.
#[cfg(test)]
mod tests {
    use super::*;

    /// `name@line: ids` of every proof in `text`.
    fn found(path: &str, text: &str) -> Vec<String> {
        let text = text.replace('§', "S");
        let whole = suite(path).map(|_| text.as_str());
        let shown = proofs(path, &text, whole).into_iter().map(|proof| {
            let ids = proof
                .mentions
                .into_iter()
                .flat_map(|mention| mention.ids.unwrap());
            let ids = ids.collect::<Vec<_>>().join(" ").replace('S', "§");
            format!("{}@{}: {ids}", proof.name, proof.line)
        });
        shown.collect()
    }

    fn in_rust(text: &str) -> Vec<String> {
        found("crates/store/tests/a.rs", text)
    }

    #[test]
    fn a_comment_block_belongs_to_the_test_below() {
        let source = "/// §1-17: results.\n// and §1-18\n#[test]\nfn a() {}\n#[test]\nfn b() {}\n";
        assert_eq!(in_rust(source), ["a@4: §1-17 §1-18"]);
    }

    #[test]
    fn attributes_count_in_any_order() {
        let source = "#[doc = \"§1-17\"]\n#[tokio::test(flavor = \"multi_thread\")]\n// §1-18\n\
                      #[cfg(unix)]\npub(crate) async fn a() {}";
        assert_eq!(in_rust(source), ["a@5: §1-17 §1-18"]);
    }

    #[test]
    fn the_enclosing_test_is_meant_inside_a_body() {
        let source = "#[test]\nfn a(x: [u8; 2]) -> bool {\n  if x { // §1-17\n  }\n  \
                      assert!(y, \"§1-18 }\");\n}\n// §1-19\nfn b() {}";
        assert_eq!(in_rust(source), ["a@2: §1-17 §1-18"]);
    }

    #[test]
    fn property_tests_count() {
        let source = "proptest! {\n  // §1-17\n  #[test]\n  fn a(x in 0..5) { f(x) }\n}";
        assert_eq!(in_rust(source), ["a@4: §1-17"]);
    }

    #[test]
    fn plain_functions_modules_and_ignored_tests_prove_nothing() {
        assert!(in_rust("// §1-17\nfn a() {}\n#[test]\nfn b() {}").is_empty());
        assert!(in_rust("// §1-17\nmod tests { #[test] fn a() {} }").is_empty());
        assert!(in_rust("// §1-17\n#[test]\n#[ignore = \"slow\"]\nfn a() {}").is_empty());
        assert!(in_rust("// §1-17\n#[cfg(test)]\nfn a() {}").is_empty());
    }

    #[test]
    fn a_blank_line_detaches() {
        assert!(in_rust("// §1-17 as a heading\n\n// text\n#[test]\nfn a() {}").is_empty());
        assert_eq!(in_rust("#[test]\n\n// §1-17\nfn a() {}"), ["a@4: §1-17"]);
    }

    #[test]
    fn a_suite_case_counts_once_it_is_listed() {
        let source = "// §1-17\npub fn a() {}\n// §1-18\npub fn b() {}\nmacro_rules! m { a }";
        assert_eq!(
            found("crates/store/src/conformance.rs", source),
            ["a@2: §1-17"]
        );
        assert!(in_rust(source).is_empty());
    }

    #[test]
    fn a_suite_is_one_file_or_a_folder_beside_it() {
        let place = Some("crates/store/src/");
        assert_eq!(suite("crates/store/src/conformance.rs"), place);
        assert_eq!(suite("crates/store/src/conformance/script.rs"), place);
        assert_eq!(suite("crates/store/src/apply.rs"), None);
    }

    #[test]
    fn examples_prove_by_their_head_comment() {
        let script = "#!/bin/sh\n# §1-04, §1-85\n\nrun\n# §1-86\n";
        assert_eq!(
            found("examples/a/run.sh", script),
            ["example@1: §1-04 §1-85"]
        );
        assert_eq!(
            found("examples/a.rs", "//! §1-04\nfn main() {}"),
            ["example@1: §1-04"]
        );
        assert!(found("examples/README.md", "# §1-04").is_empty());
    }

    #[test]
    fn docs_and_other_folders_prove_nothing() {
        let source = "// §1-17\n#[test]\nfn a() {}";
        assert!(found("docs/a.rs", source).is_empty());
        assert!(found("docs/a.md", source).is_empty());
        assert_eq!(found("crates/store/src/a.rs", source), ["a@3: §1-17"]);
    }
}
