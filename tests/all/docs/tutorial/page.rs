//! The blocks of a page: how its Markdown is read, and how the output that it shows is compared with real output.
//!
//! | info string of the block | meaning |
//! |---|---|
//! | a language and a path | a file to write |
//! | `diff` and a path | changes to that file; `@@` separates places |
//! | `console` | `$ commands`, each with its output; with `fails`, the last of them fails |
//! | `console terminal=NAME` | a program that runs on: `$` starts it, `>` is typed in, `^C` ends it, the rest is output |
//!
//! `…` matches any text within a line, and any lines when alone on a line. Any other block is refused, so that the
//! whole page is tested.

/// Matches any text, or any lines.
pub(super) const ANYTHING: &str = "…";

/// A step that a reader follows.
#[derive(Debug, PartialEq)]
pub(super) enum Block {
    File { path: String, text: String },
    Diff { path: String, diff: String },
    Talk(Talk),
}

/// The content of a terminal block.
#[derive(Debug, PartialEq)]
pub(super) struct Talk {
    /// The terminal's name; `None` is the reader's first terminal.
    pub(super) terminal: Option<String>,
    pub(super) fails: bool,
    pub(super) lines: Vec<Line>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Run(String),
    Typed(String),
    Interrupt,
    Shown(String),
}

/// The blocks of a page, each with the number of its first line.
///
/// # Panics
/// If a block has an unknown form.
pub(super) fn parse(markdown: &str) -> Vec<(usize, Block)> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
        let Some(block) = block(info, &body) else { panic!("line {number}: the block {info:?} cannot be followed") };
        blocks.push((number, block));
    }
    blocks
}

fn block(info: &str, body: &[&str]) -> Option<Block> {
    let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
    let text = || body.iter().flat_map(|line| [line, "\n"]).collect();
    match (language, rest) {
        ("console", _) => {
            let (terminal, fails) = match rest.strip_prefix("terminal=") {
                Some(name) => (Some(name.to_owned()), false),
                None if matches!(rest, "" | "fails") => (None, rest == "fails"),
                None => return None,
            };
            Some(Block::Talk(Talk { terminal, fails, lines: body.iter().map(|line| self::line(line)).collect() }))
        }
        (_, "") => None,
        ("diff", path) => Some(Block::Diff { path: path.to_owned(), diff: text() }),
        (_, path) => Some(Block::File { path: path.to_owned(), text: text() }),
    }
}

fn line(line: &str) -> Line {
    if let Some(command) = line.strip_prefix("$ ") {
        Line::Run(command.to_owned())
    } else if let Some(text) = line.strip_prefix("> ") {
        Line::Typed(text.to_owned())
    } else if line == "^C" {
        Line::Interrupt
    } else {
        Line::Shown(line.to_owned())
    }
}

/// Applies a diff. Each of its changes must fit in exactly one place.
pub(super) fn edit(text: &str, diff: &str) -> Result<String, String> {
    let mut text = text.to_owned();
    for place in diff.split("@@\n") {
        let (mut before, mut after) = (String::new(), String::new());
        for line in place.lines() {
            let (mark, line) = line.split_at_checked(1).unwrap_or((" ", line));
            for (other, side) in [("+", &mut before), ("-", &mut after)] {
                if mark != other {
                    side.push_str(line);
                    side.push('\n');
                }
            }
        }
        match text.matches(&before).count() {
            1 => text = text.replacen(&before, &after, 1),
            n => return Err(format!("this fits in {n} places, not in one:\n{before}")),
        }
    }
    Ok(text)
}

/// Whether a line matches a line of the page.
pub(super) fn line_matches(shown: &str, line: &str) -> bool {
    match shown.split_once(ANYTHING) {
        None => shown == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices().map(|(at, _)| &line[at..]).chain([""]).any(|line| line_matches(rest, line))
        }),
    }
}

/// Whether all lines match those of the page.
pub(super) fn matches(shown: &[String], lines: &[&str]) -> bool {
    match shown.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == ANYTHING => (0..=lines.len()).any(|at| matches(rest, &lines[at..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| line_matches(first, line) && matches(rest, lines))
        }
    }
}

#[test]
fn page_is_parsed_into_blocks() {
    let page = "text\n```toml a/b.toml\nx = 1\n```\n```console terminal=t\n$ run\n> say\n^C\n< ok\n```\n";
    let file = Block::File { path: "a/b.toml".to_owned(), text: "x = 1\n".to_owned() };
    let lines = vec![
        Line::Run("run".to_owned()),
        Line::Typed("say".to_owned()),
        Line::Interrupt,
        Line::Shown("< ok".to_owned()),
    ];
    let talk = Block::Talk(Talk { terminal: Some("t".to_owned()), fails: false, lines });
    assert_eq!(parse(page), [(2, file), (5, talk)]);
}

#[test]
#[should_panic(expected = "line 2")]
fn unsupported_block_is_refused() {
    parse("text\n```sh\nls\n```\n");
}

#[test]
fn change_without_one_unique_match_is_refused() {
    assert_eq!(edit("a\nb\nc\n", " a\n-b\n+x\n@@\n c\n+d\n").unwrap(), "a\nx\nc\nd\n");
    assert!(edit("a\n", "-b\n+c\n").is_err());
    assert!(edit("a\nb\na\n", " a\n+c\n").is_err());
}

#[test]
fn only_an_ellipsis_matches_differing_text() {
    assert!(line_matches("took … s, in … steps", "took 1.2 s, in 3 steps"));
    assert!(line_matches("all…", "all"));
    assert!(!line_matches("took … s", "took 1.2 ms"));
    let shown = ["…".to_owned(), "b".to_owned(), "…".to_owned()];
    assert!(matches(&shown, &["b"]));
    assert!(matches(&shown, &["a", "b", "c", "d"]));
    assert!(!matches(&shown, &["a", "c"]));
    assert!(!matches(&shown[..2], &["b", "c"]));
}
