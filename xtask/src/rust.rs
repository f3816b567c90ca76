//! Rust source, cut into just enough tokens to tell code from what is said
//! about it.
//!
//! Searching raw text would take an id in a string, a brace in a comment or a
//! `todo!(` in a doc for the real thing. A full parser would be a dependency.

/// What a token is; blanks are dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Line, block or doc comment, with its marks.
    Comment,
    /// String literal of any kind, with its quotes.
    Text,
    /// Identifier, keyword or number.
    Word,
    /// Any other single character.
    Mark,
}

/// A piece of source and the line it begins on, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }

    /// The line it ends on.
    pub(crate) fn line_last(&self) -> usize {
        self.line + self.text.matches('\n').count()
    }
}

/// Cuts `source`; text that is not Rust gives odd tokens, never a panic.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = token(rest, first);
        let (text, after) = rest.split_at(length);
        if let Some(kind) = kind {
            tokens.push(Token { kind, line, text });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Kind and length in bytes of what `rest` begins with; no kind means skip.
fn token(rest: &str, first: char) -> (Option<Kind>, usize) {
    if rest.starts_with("//") {
        return (Some(Kind::Comment), rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), block_comment(rest));
    }
    if let Some(length) = string(rest) {
        return (Some(Kind::Text), length);
    }
    if is_word(first) {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        return (Some(Kind::Word), length);
    }
    if first == '\'' {
        return (None, character(rest));
    }
    let kind = (!first.is_whitespace()).then_some(Kind::Mark);
    (kind, first.len_utf8())
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of the string literal `rest` begins with, if it does.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix);
        after.is_some_and(|after| after.starts_with(['"', '#']))
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.len() - after.trim_start_matches('#').len();
        let body = after[hashes..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = body.find(&close).map_or(body.len(), |at| at + close.len());
        return Some(prefix.len() + hashes + 1 + end);
    }
    let body = after.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    Some(prefix.len() + 1 + end.map_or(body.len(), |at| at + 1))
}

/// Length of a character literal, or of the tick alone before a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        // The escaped character may itself be a tick: look beyond it.
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            rest[from..]
                .find('\'')
                .map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Vec<(Kind, &str)> {
        tokens(source)
            .into_iter()
            .map(|token| (token.kind, token.text))
            .collect()
    }

    #[test]
    fn comments_strings_and_code_are_told_apart() {
        use Kind::*;
        assert_eq!(
            kinds("let a = \"// no\"; // \"yes\"\n/* a /* b */ c */ x"),
            [
                (Word, "let"),
                (Word, "a"),
                (Mark, "="),
                (Text, "\"// no\""),
                (Mark, ";"),
                (Comment, "// \"yes\""),
                (Comment, "/* a /* b */ c */"),
                (Word, "x"),
            ]
        );
    }

    #[test]
    fn strings_end_where_rust_ends_them() {
        use Kind::*;
        assert_eq!(
            kinds(r###"r#"a " b"# b"\"" "\\" r#type"###),
            [
                (Text, r###"r#"a " b"#"###),
                (Text, r#"b"\"""#),
                (Text, r#""\\""#),
                (Word, "r"),
                (Mark, "#"),
                (Word, "type"),
            ]
        );
    }

    #[test]
    fn ticks_are_characters_or_lifetimes() {
        let words: Vec<_> = tokens(r"'{' '\'' '\\' &'a str 'é'")
            .iter()
            .map(|t| t.text)
            .collect();
        assert_eq!(words, ["&", "a", "str"]);
    }

    #[test]
    fn lines_are_counted_through_long_tokens() {
        let tokens = tokens("/* 1\n2 */ \"3\n4\"\nend");
        let lines: Vec<_> = tokens.iter().map(|t| (t.line, t.line_last())).collect();
        assert_eq!(lines, [(1, 2), (2, 3), (4, 4)]);
    }

    #[test]
    fn unfinished_source_does_not_panic() {
        for source in ["\"a", "r#\"a", "/* a", "'", "'\\", "b'", "#"] {
            tokens(source);
        }
    }
}
