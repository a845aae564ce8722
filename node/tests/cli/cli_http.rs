//! `docs/guide/http.md`, command by command.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::cli_support::{PATIENCE, Running, free_base, run_command, stdout_of, text, wait_until};

/// Where the page has its nodes.
const OPEN: &str = "127.0.0.1:6420";
const SHUT: &str = "127.0.0.1:6430";
/// Between the outputs of two commands.
const MARK: &str = "<<end of a command>>";

/// A command and what it prints.
type Step = (String, String);

/// The fenced blocks of one language, in order.
fn blocks<'a>(page: &'a str, language: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = page.split("```").skip(1).step_by(2);
    parts.filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks(page, "console").flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => {
                output.push_str(line);
                output.push('\n');
            }
            (None, None) => panic!("output of no command: {line}"),
        }
    }
    steps
}

/// What differs from run to run, by a name for each: ids by the order they come in, times and references by one.
fn plain(text: &str, ids: &mut Vec<String>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let mut out = String::new();
    for word in text.trim().split_inclusive(|c| !is_word(c)) {
        let (name, end) = match word.find(|c| !is_word(c)) {
            Some(at) => word.split_at(at),
            None => (word, ""),
        };
        if name.len() == 12 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            out.push_str("REFERENCE");
        } else if name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            let known = ids.iter().position(|id| id == name);
            let position = known.unwrap_or_else(|| {
                ids.push(name.to_owned());
                ids.len() - 1
            });
            let _ = write!(out, "ID{position}");
        } else if name.len() == 13 && name.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str("TIME");
        } else {
            out.push_str(name);
        }
        out.push_str(end);
    }
    out
}

/// A node as the page's configuration makes it: with tokens.
fn shut(dir: &Path, page: &str, port: u16) -> Running {
    let certs = dir.join("certs");
    let certs = certs.to_str().unwrap();
    stdout_of(&["cert", "init", "--dir", certs, "--cluster", "page"]);
    stdout_of(&["cert", "issue", "--dir", certs, "--node", "1"]);
    let tokens: String = blocks(page, "toml").collect();
    let listen = port + 1000;
    let config = format!(
        "node = 1\ndata-dir = \"data\"\ncert-dir = \"certs\"\nlisten = \"127.0.0.1:{listen}\"\n\
         gateway = [\"127.0.0.1:{port}\"]\n[cluster]\nbootstrap = true\nreplicas = 1\n{tokens}"
    );
    let file = dir.join("clinch.toml");
    std::fs::write(&file, config).unwrap();
    Running::start(&["start", "--config", file.to_str().unwrap()], dir.join("log"))
}

#[test]
fn the_page_about_plain_http_says_what_a_node_answers() {
    let page = include_str!("../../../docs/guide/http.md");
    let steps = steps(page);
    assert!(steps.len() > 30, "{} commands", steps.len());
    let dir = tempfile::tempdir().unwrap();
    let base = free_base(11);
    let (open, closed) = (base, base + 10);
    let folder = dir.path().join("d");
    let (port, listen) = (open.to_string(), (open + 1000).to_string());
    let args = [
        "dev",
        "--json",
        "--dir",
        folder.to_str().unwrap(),
        "--port",
        &port,
        "--listen-port",
        &listen,
    ];
    let dev = Running::start(&args, dir.path().join("dev.log"));
    dev.line();
    let shut = shut(dir.path(), page, closed);
    wait_until("the node with tokens is ready", || {
        let mut ready = Command::new("curl");
        ready.args(["-sf", &format!("http://127.0.0.1:{closed}/ready")]);
        run_command(ready, PATIENCE).status.success().then_some(())
    });

    let mut script = String::new();
    for (command, _) in &steps {
        let _ = writeln!(script, "{{ {command}\n}} 2>&1; printf '\\n%s\\n' '{MARK}'");
    }
    let script = script
        .replace(OPEN, &format!("127.0.0.1:{open}"))
        .replace(SHUT, &format!("127.0.0.1:{closed}"));
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]);
    let output = text(&run_command(shell, PATIENCE).stdout);
    let outputs: Vec<&str> = output.split(MARK).collect();
    assert_eq!(outputs.len(), steps.len() + 1, "{output}");

    let (mut of_page, mut of_node) = (Vec::new(), Vec::new());
    let mut wrong = String::new();
    for ((command, expected), found) in steps.iter().zip(outputs) {
        if plain(expected, &mut of_page) != plain(found, &mut of_node) {
            let _ = writeln!(
                wrong,
                "$ {command}\n{}\n  but the page says\n{expected}",
                found.trim()
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}\n{}", dev.stderr(), shut.stderr());
}
