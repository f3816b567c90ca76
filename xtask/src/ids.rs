//! Ids of requirement rows in running text: alone, in lists, in ranges.
//!
//! The tests here write `§` for the leading letter, so that a made-up id is
//! not taken for a citation of a real row.

use crate::rust::is_word;

/// One place in a text that names rows, with the line it stands on, from 1.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    /// The ids named, ranges expanded; or why this is not an id at all.
    pub(crate) ids: Result<Vec<String>, String>,
}

/// Finds every mention in `text`.
pub(crate) fn mentions(text: &str) -> Vec<Mention> {
    text.lines()
        .enumerate()
        .flat_map(|(index, line)| {
            in_line(line).into_iter().map(move |ids| Mention {
                line: index + 1,
                ids,
            })
        })
        .collect()
}

/// Whether `text` is one id and nothing else.
pub(crate) fn is_id(text: &str) -> bool {
    matches!(Found::at(text), Some(Found { length, ids: Ok(_) }) if length == text.len())
}

/// The family a row belongs to, the part before the hyphen.
pub(crate) fn family(id: &str) -> &str {
    id.split_once('-').map_or(id, |(family, _)| family)
}

fn in_line(line: &str) -> Vec<Result<Vec<String>, String>> {
    let mut mentions = Vec::new();
    let mut before = ' ';
    let mut at = 0;
    while let Some(here) = line[at..].chars().next() {
        let found = if is_word(before) {
            None
        } else {
            Found::at(&line[at..])
        };
        match found {
            Some(found) => {
                mentions.push(found.ids);
                at += found.length;
                before = ' ';
            }
            None => {
                at += here.len_utf8();
                before = here;
            }
        }
    }
    mentions
}

/// What a text begins with.
struct Found {
    length: usize,
    ids: Result<Vec<String>, String>,
}

impl Found {
    fn at(text: &str) -> Option<Found> {
        let first = match Written::at(text)? {
            Ok(first) => first,
            Err(length) => {
                let written = &text[..length];
                return Some(Found {
                    length,
                    ids: Err(format!("`{written}` is not an id")),
                });
            }
        };
        let rest = &text[first.text.len()..];
        let Some(after) = rest.strip_prefix("..") else {
            return Some(Found {
                length: first.text.len(),
                ids: Ok(vec![first.text.into()]),
            });
        };
        let after = after.strip_prefix('=').unwrap_or(after);
        let from = text.len() - after.len();
        match Written::at(after) {
            Some(Ok(last)) => {
                let length = from + last.text.len();
                Some(Found {
                    length,
                    ids: range(&first, &last, &text[..length]),
                })
            }
            None if after.starts_with(|c: char| c.is_ascii_digit()) => Some(Found {
                length: from,
                ids: Err(format!(
                    "a range names both ends in full, after `{}..`",
                    first.text
                )),
            }),
            // Only dots: the end of a sentence that trails off.
            _ => Some(Found {
                length: first.text.len(),
                ids: Ok(vec![first.text.into()]),
            }),
        }
    }
}

/// All ids from `first` to `last`, both included.
fn range(first: &Written, last: &Written, written: &str) -> Result<Vec<String>, String> {
    if first.family != last.family {
        return Err(format!(
            "`{written}` crosses from {} to {}",
            first.family, last.family
        ));
    }
    if first.number > last.number {
        return Err(format!("`{written}` runs backwards"));
    }
    Ok((first.number..=last.number)
        .map(|n| format!("{}-{n:02}", first.family))
        .collect())
}

/// One id as it is written.
struct Written<'a> {
    text: &'a str,
    family: &'a str,
    number: u16,
}

impl<'a> Written<'a> {
    /// None: nothing like an id. `Err(length)`: meant as one, but broken.
    fn at(text: &'a str) -> Option<Result<Written<'a>, usize>> {
        let digit = |c: char| c.is_ascii_digit();
        let family = match text.as_bytes() {
            [b'S', d, b'-', ..] if d.is_ascii_digit() => &text[..2],
            [b'H', b'-', d, ..] if d.is_ascii_digit() => &text[..1],
            _ => return None,
        };
        let tail = &text[family.len() + 1..];
        let tail = &tail[..tail.find(|c| !is_word(c)).unwrap_or(tail.len())];
        // "…3-compatible" is an English word about storage, not a broken id.
        if tail.len() >= 3 && tail.bytes().all(|b| b.is_ascii_lowercase()) {
            return None;
        }
        let length = family.len() + 1 + tail.len();
        let number = tail
            .parse()
            .ok()
            .filter(|_| !tail.is_empty() && tail.chars().all(digit));
        Some(match number {
            Some(number) => Ok(Written {
                text: &text[..length],
                family,
                number,
            }),
            None => Err(length),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids in `text`; a broken one as `!`.
    fn found(text: &str) -> String {
        let text = text.replace('§', "S");
        let named = mentions(&text)
            .into_iter()
            .map(|mention| match mention.ids {
                Ok(ids) => ids.join(" "),
                Err(_) => "!".into(),
            });
        named.collect::<Vec<_>>().join(", ").replace('S', "§")
    }

    #[test]
    fn ids_are_found_alone_and_in_lists() {
        assert_eq!(found("// §1-17"), "§1-17");
        assert_eq!(found("(§1-16, §1-17; §0-220)."), "§1-16, §1-17, §0-220");
        assert_eq!(
            found("proves §1-17: and H".replace(" H", " also").as_str()),
            "§1-17"
        );
        assert_eq!(found("nothing, MS1-17, a_§1-17, S1, §x-1, UTF-8"), "");
    }

    #[test]
    fn ranges_expand_within_a_family() {
        assert_eq!(found("§1-08..§1-11"), "§1-08 §1-09 §1-10 §1-11");
        assert_eq!(found("§1-99..=§1-101"), "§1-99 §1-100 §1-101");
        assert_eq!(found("§1-17..§1-17, §2-01"), "§1-17, §2-01");
    }

    #[test]
    fn broken_ranges_and_ids_are_named() {
        assert_eq!(found("§1-40..§2-02"), "!");
        assert_eq!(found("§1-40..§1-36"), "!");
        assert_eq!(found("§1-36..40"), "!");
        assert_eq!(found("§1- and §1-xx and §1-17b and §1-99999"), "!, !, !, !");
    }

    #[test]
    fn prose_is_left_alone() {
        assert_eq!(found("see §1-17... and §3-compatible storage"), "§1-17");
    }

    #[test]
    fn lines_are_counted() {
        let lines: Vec<_> = mentions(&"\n§1-17\n\n§1-18".replace('§', "S"))
            .iter()
            .map(|mention| mention.line)
            .collect();
        assert_eq!(lines, [2, 4]);
    }

    #[test]
    fn an_id_alone_is_recognised() {
        assert!(is_id(&"§1-17".replace('§', "S")));
        assert!(!is_id(&"§1-17 ".replace('§', "S")));
        assert!(!is_id("id"));
        assert_eq!(family("A1-17"), "A1");
    }
}
