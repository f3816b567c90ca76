//! `cargo xtask requirements`: the status table, made from the tests.
//!
//! Nobody writes that a row is done. A row is proven when a test names it, and
//! open otherwise; a citation of a row that does not exist is an error wherever
//! it stands, because it would rot unnoticed.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};

use crate::citations::{Proof, can_prove, proofs, suite};
use crate::ids::Mention;
use crate::tree::{File, files, root};
use crate::{Done, ids};

/// The list of rows, below the root.
const LIST: &str = "docs/requirements.tsv";

/// Longest title, so that a line of the table fits a terminal.
const TITLE_CHARS_MAX: usize = 60;

pub(crate) fn requirements(arguments: &[String]) -> Done {
    let brief = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("usage: cargo xtask requirements [--check]".into()),
    };
    let list = list()?;
    let report = Report::new(&list, &files(root()));
    let table = if brief { String::new() } else { report.table() };
    print(&format!("{table}{}", report.totals()))?;
    for problem in &report.problems {
        eprintln!("{problem}");
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(format!(
            "{count} problem(s) with requirement rows; each is named above"
        )),
    }
}

/// All that is wrong with the list and with what the tree cites.
#[cfg(test)]
pub(crate) fn problems() -> Result<Vec<String>, String> {
    Ok(Report::new(&list()?, &files(root())).problems)
}

fn list() -> Result<String, String> {
    std::fs::read_to_string(root().join(LIST))
        .map_err(|error| format!("cannot read {LIST}: {error}"))
}

/// Prints, and takes a closed pipe (`| head`) for a reader who has seen enough.
fn print(text: &str) -> Done {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// One row of the list.
struct Row<'a> {
    id: &'a str,
    title: &'a str,
    /// `path:line function` of each test that names it.
    proofs: Vec<String>,
}

/// All rows in the order of the list, and all that is wrong.
struct Report<'a> {
    rows: Vec<Row<'a>>,
    /// Places in tests and sources that cite a row but prove nothing: a blank
    /// line too many, a helper function, an ignored test, plain prose.
    loose: Vec<String>,
    problems: Vec<String>,
}

impl<'a> Report<'a> {
    fn new(list: &'a str, files: &[File]) -> Self {
        let mut report = Report {
            rows: Vec::new(),
            loose: Vec::new(),
            problems: Vec::new(),
        };
        let mut by_id = BTreeMap::new();
        report.read(list, &mut by_id);
        let mut suites: BTreeMap<&str, String> = BTreeMap::new();
        for file in files {
            if let Some(place) = suite(&file.path) {
                suites.entry(place).or_default().push_str(&file.text);
            }
        }
        for file in files {
            report.problems.extend(bad_citations(file, &by_id));
            let whole = suite(&file.path).and_then(|place| suites.get(place));
            let proofs = proofs(&file.path, &file.text, whole.map(String::as_str));
            report.loose.extend(loose(file, &proofs));
            for proof in &proofs {
                report.credit(&file.path, proof, &by_id);
            }
        }
        report
    }

    /// Reads the list; fills `by_id` with each row's place in it.
    fn read(&mut self, list: &'a str, by_id: &mut BTreeMap<&'a str, usize>) {
        for (index, line) in list.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut problem = |what| self.problems.push(format!("{LIST}:{}: {what}", index + 1));
            let Some((id, title)) = line.split_once('\t') else {
                problem("a line is an id, a TAB and a title".to_owned());
                continue;
            };
            if !ids::is_id(id) {
                problem(format!("`{id}` is not an id"));
            } else if by_id.insert(id, self.rows.len()).is_some() {
                problem(format!("{id} is listed twice; ids are never reused"));
            }
            if title.is_empty() || title.chars().count() > TITLE_CHARS_MAX {
                problem(format!(
                    "{id} needs a title of 1 to {TITLE_CHARS_MAX} characters"
                ));
            }
            self.rows.push(Row {
                id,
                title,
                proofs: Vec::new(),
            });
        }
    }

    fn credit(&mut self, path: &str, proof: &Proof, by_id: &BTreeMap<&str, usize>) {
        let place = format!("{path}:{} {}", proof.line, proof.name);
        let ids = proof
            .mentions
            .iter()
            .flat_map(|mention| mention.ids.iter().flatten());
        for index in ids.filter_map(|id| by_id.get(id.as_str())) {
            let proofs = &mut self.rows[*index].proofs;
            // A test may name a row above and again inside.
            if proofs.last() != Some(&place) {
                proofs.push(place.clone());
            }
        }
    }

    /// Every row with its title, then its proofs, one a line.
    fn table(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let state = if row.proofs.is_empty() {
                "open"
            } else {
                "proven"
            };
            text += &format!("{:<7} {state:<7} {}\n", row.id, row.title);
            for proof in &row.proofs {
                text += &format!("{:16}{proof}\n", "");
            }
        }
        text.push('\n');
        if !self.loose.is_empty() {
            text += "cited on no test that runs, so proving nothing:\n";
            for place in &self.loose {
                text += &format!("  {place}\n");
            }
            text.push('\n');
        }
        text
    }

    /// Rows, proven and open for each family and for all.
    fn totals(&self) -> String {
        let mut families: Vec<(&str, usize, usize)> = Vec::new();
        for row in &self.rows {
            let family = ids::family(row.id);
            let proven = usize::from(!row.proofs.is_empty());
            match families.iter_mut().find(|(name, ..)| *name == family) {
                Some((_, rows, sum)) => (*rows, *sum) = (*rows + 1, *sum + proven),
                None => families.push((family, 1, proven)),
            }
        }
        let rows = families.iter().map(|(_, rows, _)| rows).sum();
        let proven = families.iter().map(|(.., proven)| proven).sum();
        families.push(("all", rows, proven));
        let mut text = String::from("rows     total  proven    open\n");
        for (name, rows, proven) in families {
            text += &format!("{name:<7}{rows:>7}{proven:>8}{:>8}\n", rows - proven);
        }
        text
    }
}

/// The citations in a file that may prove something, but belong to no test.
fn loose(file: &File, proofs: &[Proof]) -> Vec<String> {
    if !can_prove(&file.path) {
        return Vec::new();
    }
    let proving = |line| {
        proofs
            .iter()
            .flat_map(|proof| &proof.mentions)
            .any(|m| m.line == line)
    };
    ids::mentions(&file.text)
        .into_iter()
        .filter(|mention| !proving(mention.line))
        .filter_map(|Mention { line, ids }| Some((line, ids.ok()?.join(" "))))
        .map(|(line, ids)| format!("{}:{line} {ids}", file.path))
        .collect()
}

/// What is wrong with the ids a file names, wherever they stand.
fn bad_citations(file: &File, by_id: &BTreeMap<&str, usize>) -> Vec<String> {
    let mut problems = Vec::new();
    for mention in ids::mentions(&file.text) {
        let place = format!("{}:{}", file.path, mention.line);
        match mention.ids {
            Err(why) => problems.push(format!("{place}: {why}")),
            Ok(ids) => problems.extend(
                ids.iter()
                    .filter(|id| !by_id.contains_key(id.as_str()))
                    .map(|id| format!("{place}: {id} is not in {LIST}")),
            ),
        }
    }
    problems
}

/// See `ids`: `§` stands for the leading letter.
#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "# comment\n§1-01\tone\n§1-02\ttwo\n§2-01\tthree\n";

    /// Table, totals and problems for a list and one test file.
    fn report(list: &str, test: &str) -> [String; 3] {
        let [list, text] = [list, test].map(|text| text.replace('§', "S"));
        let file = File {
            path: "crates/store/tests/a.rs".into(),
            text,
        };
        let report = Report::new(&list, &[file]);
        [report.table(), report.totals(), report.problems.join("\n")]
            .map(|text| text.replace('S', "§"))
    }

    #[test]
    fn the_table_shows_proofs_and_what_is_open() {
        let [table, totals, problems] = report(SMALL, "// §1-02\n#[test]\nfn a() { /* §1-02 */ }");
        assert_eq!(
            table,
            "§1-01   open    one\n\
             §1-02   proven  two\n                crates/store/tests/a.rs:3 a\n\
             §2-01   open    three\n\n"
        );
        assert_eq!(
            totals,
            "rows     total  proven    open\n\
             §1           2       1       1\n\
             §2           1       0       1\n\
             all          3       1       2\n"
        );
        assert_eq!(problems, "");
    }

    #[test]
    fn citations_on_no_test_are_shown_apart() {
        let [table, ..] = report(SMALL, "// §1-01..§1-02\n\n#[test]\nfn a() {}");
        let (_, loose) = table.split_once("proving nothing:\n").unwrap();
        assert_eq!(loose, "  crates/store/tests/a.rs:1 §1-01 §1-02\n\n");
    }

    #[test]
    fn an_unknown_id_is_a_problem_even_in_a_plain_comment() {
        let [_, _, problems] = report(SMALL, "\n// §1-01..§1-03");
        assert_eq!(
            problems,
            "crates/store/tests/a.rs:2: §1-03 is not in docs/requirements.tsv"
        );
        let [_, _, problems] = report(SMALL, "// §1-01..§2-01");
        assert!(problems.contains("crosses"), "{problems}");
    }

    #[test]
    fn the_list_is_checked() {
        let list = "§1-01\tone\n§1-01\tagain\n§1-02 no tab\n§1-03\t\nX\tname\n";
        let [_, _, problems] = report(list, "");
        let lines: Vec<_> = problems
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(
            lines,
            [2, 3, 4, 5].map(|line| format!("docs/requirements.tsv:{line}:"))
        );
    }
}
