//! Source files as code alone, without comments and the text of literals, and the rules about single files.

use std::path::{Path, PathBuf};

use crate::{assert_none, root};

/// A file past this length usually holds two ideas.
const LINES_MAX: usize = 600;
/// Left-overs of a work day. Clippy finds most; this one also sees code that is compiled out.
const LEFT_OVERS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// One file of `src/`.
pub struct Source {
    /// Relative to `src/`, such as `raft/wal/mod.rs`.
    pub path: PathBuf,
    /// Its lines, with comments and the text of literals blanked out.
    pub code: Vec<String>,
}

impl Source {
    /// Name of the module at the crate root that the file belongs to.
    pub fn layer(&self) -> &str {
        let first = self.path.iter().next().and_then(|part| part.to_str()).expect("a file below src");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// `file:line`, as editors and terminals link it.
    pub fn at(&self, line: usize) -> String {
        format!("src/{}:{}", self.path.display(), line + 1)
    }
}

/// Every file of `src/`, in order.
pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.sort();
    assert!(files.len() > 20, "src should be where the manifest is");
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        let code = code_only(&text).lines().map(str::to_owned).collect();
        Source { path: file.strip_prefix(&src).expect("below src").to_owned(), code }
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The words of a line, at their places. A path segment counts as a word.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `text` with everything blanked out that is a comment or inside quotes; lines stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest),
            'r' if !code.ends_with(word_char) => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            // A separator, so that the words around do not grow together.
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the string literal at the begin of `text`.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string at the begin of `text`; 0 if there is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let open = 1 + hashes;
    if !text[open..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open + 1..].find(&close).map_or(text.len(), |at| open + 1 + at + close.len())
}

/// Length of the character literal at the begin of `text`; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(0, |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "a // \"x\n/* b\n*/ c(\"d \\\" e\", 'f', '\\'', '\\u{1}') for <'g> r#\"h \" i\"# r j";
    let code = code_only(text);
    assert_eq!(words(&code).collect::<Vec<_>>(), ["a", "c", "for", "g", "r", "j"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn no_file_is_too_long() {
    let long = sources()
        .iter()
        .filter(|source| source.code.len() > LINES_MAX)
        .map(|source| format!("src/{}: {} lines", source.path.display(), source.code.len()))
        .collect::<Vec<_>>();
    assert_none(&format!("a file has at most {LINES_MAX} lines: look for the seam"), &long);
}

#[test]
fn nothing_is_left_undone() {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.code.iter().enumerate() {
            for left_over in LEFT_OVERS {
                let here = line.match_indices(left_over).any(|(at, _)| !line[..at].ends_with(word_char));
                if here {
                    found.push(format!("{}: {left_over}", source.at(number)));
                }
            }
        }
    }
    assert_none("no left-overs in src", &found);
}
