//! The pages for readers: what they name exists, their links lead somewhere, and the page on the configuration is what
//! `config/default.toml` says. `edge::first_steps` runs their commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

use crate::harness::Octo;

const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Longest README, in bytes: it is read to the end.
const README_BYTES_MAX: usize = 6144;

const CONFIGURATION: &str = "docs/configuration.md";

const CONFIGURATION_HEAD: &str = "\
<!-- Made from config/default.toml, where each text stands beside its key. After a change there:
     OCTO_WRITE_DOCS=1 cargo nextest run -E 'test(/^files::documentation::the_page_on_the_configuration/)' -->

# Configuration

Every key, its default, and the variable of the environment that sets it. All of them have defaults: without any
configuration octo starts a private PostgreSQL and listens on this machine only.

Later ones win:

1. the defaults, [`config/default.toml`](../config/default.toml), built into the program;
2. a TOML file with the keys that you change, named by `--config FILE` or `OCTO_CONFIG`;
   [`config/production.toml`](../config/production.toml) is one;
3. the environment: `OCTO_<SECTION>__<KEY>`, and the usual `DATABASE_URL`, `REDIS_URL` and `PORT`. A list is separated by
   commas. Every variable may end in `_FILE` and name a file that holds the value, for secrets: `DATABASE_URL_FILE`;
4. the command line: `--listen`, `--data-dir`, `--log-format`.

An unknown key is refused with the nearest name. `octo config check` says whether all values fit together, `octo config print`
what is in force and where it came from, without secrets.

Names tell units: `_ms` are milliseconds, `_s` seconds; `_bytes` and `_rows` count. An empty text means \"not set\".
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The pages by their paths from the root.
pub(crate) fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    for directory in ["", "docs"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            if name.extension().is_some_and(|e| e == "md") {
                let path = Path::new(directory).join(name);
                let text = fs::read_to_string(root().join(&path)).unwrap();
                pages.insert(path, text);
            }
        }
    }
    pages
}

/// The lines of a page, and whether each stands in a block of code; the fences themselves are left out.
fn lines(page: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut is_code = false;
    page.lines().filter_map(move |line| {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            return None;
        }
        Some((line, is_code))
    })
}

/// The blocks of commands of a page.
pub(crate) fn commands(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// The names by which headings are linked, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in lines(page).filter(|(_, is_code)| !is_code).filter_map(|(line, _)| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len()).then(|| text.strip_prefix(' ')).flatten()
    }) {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The keys of the configuration: section and name.
fn keys() -> BTreeMap<String, toml::Table> {
    let table: toml::Table = DEFAULTS.parse().unwrap();
    table.into_iter().map(|(section, keys)| (section, keys.as_table().unwrap().clone())).collect()
}

fn is_key(section: &str, name: &str) -> bool {
    keys().get(section).is_some_and(|keys| keys.contains_key(name))
}

#[test]
fn the_readme_is_short() {
    let bytes = fs::metadata(root().join("README.md")).unwrap().len();
    assert!(bytes <= README_BYTES_MAX as u64, "README.md has {bytes} bytes: move something to docs/");
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let pages = pages();
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let (mut seen, mut broken) = (0, Vec::new());
    for (path, page) in &pages {
        let text = lines(page).filter(|(_, is_code)| !is_code).map(|(line, _)| line);
        for target in text.flat_map(|line| link.captures_iter(line)).map(|found| found[1].to_owned()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file =
                if file.is_empty() { root().join(path) } else { root().join(path).with_file_name(file) };
            let Ok(file) = file.canonicalize() else {
                broken.push(format!("{}: there is no {target}", path.display()));
                continue;
            };
            if !anchor.is_empty() && !anchors(&fs::read_to_string(file).unwrap()).contains(anchor) {
                broken.push(format!("{}: no heading for {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 100, "{seen} links in {} pages", pages.len());
}

#[test]
fn every_page_is_found_from_the_readme() {
    let pages = pages();
    let readme = &pages[Path::new("README.md")];
    for path in pages.keys().filter(|path| path.as_path() != Path::new("README.md")) {
        assert!(
            readme.contains(&format!("({})", path.display())),
            "the README does not link to {}",
            path.display()
        );
    }
}

#[test]
fn every_key_that_is_named_is_one_of_the_configuration() {
    let sections: Vec<String> = keys().into_keys().collect();
    let named = Regex::new(&format!(r"`({})\.([a-z0-9_]+)", sections.join("|"))).unwrap();
    let variable = Regex::new(r"\bOCTO_[A-Z0-9_]+").unwrap();
    // what is read by others: the command line, the tests, haproxy.cfg
    let others = ["OCTO_CONFIG", "OCTO_PROOF", "OCTO_WRITE_DOCS", "OCTO_BIND", "OCTO_NODE_A", "OCTO_NODE_B"];
    let is_file = |name: &str| ["rs", "md", "toml", "json", "log", "yml"].contains(&name);
    let (mut seen, mut unknown) = (0, Vec::new());
    for (path, page) in pages() {
        for found in named.captures_iter(&page).filter(|found| !is_file(&found[2])) {
            seen += 1;
            if !is_key(&found[1], &found[2]) {
                unknown.push(format!("{}: {}.{}", path.display(), &found[1], &found[2]));
            }
        }
        for found in variable.find_iter(&page) {
            seen += 1;
            let name = found.as_str();
            let is_known = name["OCTO_".len()..].split_once("__").is_some_and(|(section, key)| {
                let (section, key) = (section.to_lowercase(), key.to_lowercase());
                is_key(&section, &key) || is_key(&section, key.strip_suffix("_file").unwrap_or_default())
            });
            if !is_known && !others.contains(&name) {
                unknown.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(seen > 100, "{seen} keys and variables");
}

/// What follows `octo` in a command: its subcommands in every way that `a|b` may be read, and its flags.
fn command_lines(text: &str) -> (Vec<Vec<String>>, Vec<String>) {
    let is_word =
        |word: &str| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let text = text.split(" #").next().unwrap_or_default();
    let words: Vec<&str> =
        text.split_whitespace().take_while(|w| !w.starts_with(['<', '>', '|', '&', '#'])).collect();
    let mut paths = vec![Vec::new()];
    for word in words.iter().take(2) {
        let choices: Vec<&str> = word.trim_matches(['[', ']']).split('|').collect();
        if !choices.iter().all(|choice| !choice.is_empty() && is_word(choice)) {
            break;
        }
        let longer = |path: &Vec<String>| {
            let path = path.clone();
            choices
                .iter()
                .map(move |choice| [path.clone(), vec![(*choice).to_owned()]].concat())
                .collect::<Vec<_>>()
        };
        paths = paths.iter().flat_map(longer).collect();
    }
    let flag = Regex::new(r"--[a-z][a-z-]*").unwrap();
    let flags = words.iter().flat_map(|word| flag.find_iter(word)).map(|found| found.as_str().to_owned());
    (paths, flags.collect())
}

#[tokio::test]
async fn every_command_and_flag_of_octo_that_is_named_exists() {
    let inline = Regex::new(r"`octo ([^`]+)`").unwrap();
    let in_block = Regex::new(r"^(?:[A-Z_]+=\S+ +)*octo ((?:--)?[a-z].*)").unwrap();
    let mut named: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for page in pages().values() {
        for (line, is_code) in lines(page) {
            let pattern = if is_code { &in_block } else { &inline };
            for found in pattern.captures_iter(line) {
                let (paths, flags) = command_lines(&found[1]);
                for path in paths {
                    named.entry(path).or_default().extend(flags.iter().cloned());
                }
            }
        }
    }
    let octo = Octo::builder();
    for (path, flags) in &named {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = octo.run(&args).await;
        let command = format!("octo {}", path.join(" "));
        assert!(help.status.success(), "there is no `{command}`: {}", String::from_utf8_lossy(&help.stderr));
        let help = String::from_utf8_lossy(&help.stdout);
        for flag in flags {
            assert!(help.contains(flag.as_str()), "`{command}` has no {flag}");
        }
    }
    assert!(named.len() > 15, "{named:?}");
}

/// One key as it stands in `config/default.toml`: its default as TOML, and what is said of it.
struct Key {
    section: String,
    name: String,
    default: String,
    comment: String,
}

/// All keys in their order, and what is said of sections. Whole lines of comment belong to the key below them.
fn described() -> (Vec<Key>, BTreeMap<String, String>) {
    let header = Regex::new(r"^\[(\w+)\]\s*(?:# (.*))?$").unwrap();
    let line = Regex::new(r#"^(\w+) = ("(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^#\s]+)\s+# (.+)$"#).unwrap();
    let (mut keys, mut sections, mut section, mut above) =
        (Vec::new(), BTreeMap::new(), String::new(), Vec::new());
    let (_, body) = DEFAULTS.split_once("\n\n").unwrap(); // what is said of the file
    for text in body.lines().filter(|text| !text.is_empty()) {
        if let Some(comment) = text.strip_prefix("# ") {
            above.push(comment);
        } else if let Some(found) = header.captures(text) {
            found[1].clone_into(&mut section);
            sections.insert(section.clone(), found.get(2).map_or("", |m| m.as_str()).to_owned());
        } else {
            let found = line.captures(text).unwrap_or_else(|| panic!("a key without a comment: {text}"));
            let comment = [&found[3], &above.join(" ")].join(". ");
            let comment = comment.strip_suffix(". ").unwrap_or(&comment).to_owned();
            above.clear();
            let (name, default) = (found[1].to_owned(), found[2].to_owned());
            keys.push(Key { section: section.clone(), name, default, comment });
        }
    }
    (keys, sections)
}

fn render() -> String {
    let (described, sections) = described();
    let all: usize = keys().values().map(toml::Table::len).sum();
    assert_eq!(described.len(), all, "keys of config/default.toml");
    let cell = |text: &str| text.replace('<', "&lt;").replace('|', "\\|");
    let mut page = CONFIGURATION_HEAD.to_owned();
    let mut section = "";
    for key in &described {
        assert!(is_key(&key.section, &key.name), "{}.{}", key.section, key.name);
        if key.section != section {
            section = &key.section;
            writeln!(page, "\n## {section}").unwrap();
            if !sections[section].is_empty() {
                writeln!(page, "\nValues are {}.", cell(&sections[section])).unwrap();
            }
            writeln!(page, "\n| key, variable | default | |\n|---|---|---|").unwrap();
        }
        let variable = format!("OCTO_{}__{}", section.to_uppercase(), key.name.to_uppercase());
        let (name, default, comment) = (&key.name, &key.default, cell(&key.comment));
        writeln!(page, "| `{section}.{name}`<br>`{variable}` | `{default}` | {comment} |").unwrap();
    }
    page
}

#[test]
fn the_page_on_the_configuration_is_what_the_defaults_say() {
    let (path, rendered) = (root().join(CONFIGURATION), render());
    if std::env::var_os("OCTO_WRITE_DOCS").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(rendered.lines()).find(|(is, should)| is != should);
    assert!(
        page == rendered,
        "{CONFIGURATION} is not what config/default.toml says; its first line is the command that writes it. {differs:?}"
    );
}
