//! The tutorial: its files are written, its commands run, and their output is compared with that on the page.

mod page;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use roundhouse_tests::{TestHost, skip, target_dir};

use page::{Block, Line, Talk, edit, parse};
use terminal::Terminals;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The programs that the page needs and this machine lacks, if any.
fn missing() -> Option<&'static str> {
    let prints = |command: &str, args: &[&str]| {
        let output = Command::new(command).args(args).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    if prints("node", &["--experimental-websocket", "--print", "typeof WebSocket"]).as_deref() != Some("function\n") {
        return Some("there is no node, or it is older than 20.10");
    }
    if prints("curl", &["--version"]).is_none() {
        return Some("there is no curl");
    }
    None
}

/// The folder in which the tutorial starts, with the repository inside. It is kept between runs for its build cache.
fn beginning() -> io::Result<PathBuf> {
    let folder = target_dir().join("tutorial");
    let (repository, own) = (folder.join("roundhouse"), folder.join("raised-hand"));
    if repository.exists() {
        fs::remove_dir_all(&repository)?;
    }
    fs::create_dir_all(repository.join("target"))?;
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        if entry.file_name() != "target" {
            std::os::unix::fs::symlink(entry.path(), repository.join(entry.file_name()))?;
        }
    }
    // The tutorial's commands find the tested host, wherever the host was built.
    let built = TestHost::binary();
    std::os::unix::fs::symlink(built.parent().unwrap(), repository.join("target/release"))?;
    fs::create_dir_all(&own)?;
    for entry in fs::read_dir(&own)? {
        let entry = entry?;
        if entry.file_name() == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(folder)
}

#[test]
fn tutorial_works_as_written() {
    if let Some(why) = missing() {
        return skip("tutorial_works_as_written", why);
    }
    let page = fs::read_to_string(root().join("sdk/TUTORIAL.md")).unwrap();
    let mut terminals = Terminals::new(beginning().unwrap());
    for (number, block) in parse(&page) {
        if let Err(why) = follow(&mut terminals, &block) {
            panic!("sdk/TUTORIAL.md, the block at line {number}: {why}");
        }
    }
}

/// Follows a block as a reader would.
fn follow(terminals: &mut Terminals, block: &Block) -> Result<(), String> {
    match block {
        Block::File { path, text } => {
            let text = terminals.with_real_ports(text);
            fs::write(terminals.folder.join(path), text).map_err(|error| format!("cannot write {path}: {error}"))
        }
        Block::Diff { path, diff } => {
            let path = terminals.folder.join(path);
            let before =
                fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            fs::write(&path, edit(&before, diff)?).map_err(|error| error.to_string())
        }
        Block::Talk(talk) => match &talk.terminal {
            Some(name) => talk_on(terminals, name, &talk.lines),
            None => run_all(terminals, talk),
        },
    }
}

/// Runs commands to their ends, and compares their whole output. With `fails`, the last command must fail.
fn run_all(terminals: &mut Terminals, talk: &Talk) -> Result<(), String> {
    let mut commands: Vec<(&str, Vec<String>)> = Vec::new();
    for line in &talk.lines {
        match (line, commands.last_mut()) {
            (Line::Run(command), _) => commands.push((command, Vec::new())),
            (Line::Shown(shown), Some((_, expected))) => expected.push(terminals.with_real_ports(shown)),
            _ => return Err("only commands and what they print can stand here".to_owned()),
        }
    }
    let n = commands.len();
    for (position, (command, expected)) in commands.into_iter().enumerate() {
        let (succeeded, printed) = terminals.run(command)?;
        let is_to_succeed = !(talk.fails && position + 1 == n);
        if succeeded != is_to_succeed {
            return Err(format!("{command} {}:\n{printed}", if succeeded { "succeeded" } else { "failed" }));
        }
        if !page::matches(&expected, &printed.trim_end().lines().collect::<Vec<_>>()) {
            return Err(format!("{command} should print\n{}\nbut printed\n{printed}", expected.join("\n")));
        }
    }
    Ok(())
}

/// Follows a block of another terminal, whose program keeps running while later blocks are followed.
fn talk_on(terminals: &mut Terminals, name: &str, lines: &[Line]) -> Result<(), String> {
    let mut may_skip = false;
    for line in lines {
        match line {
            Line::Run(command) => terminals.start(name, command)?,
            Line::Typed(text) => terminals.program(name)?.type_in(text)?,
            Line::Interrupt => terminals.program(name)?.interrupt()?,
            Line::Shown(shown) if shown == page::ANYTHING => {
                may_skip = true;
                continue;
            }
            Line::Shown(shown) => {
                let expected = terminals.with_real_ports(shown);
                terminals.program(name)?.expect(&expected, may_skip)?;
            }
        }
        may_skip = false;
    }
    Ok(())
}
