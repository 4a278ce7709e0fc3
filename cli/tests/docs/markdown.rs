//! As much of Markdown as the documents use.

use std::path::{Path, PathBuf};

/// A document.
pub(crate) struct Page {
    /// From the root of the repository.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A block of code.
pub(crate) struct Block {
    /// What stands behind the fence; empty for an indented one.
    pub(crate) language: String,
    pub(crate) text: String,
    /// Where it begins, counted from one.
    pub(crate) line: usize,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The documents in the root, and all of `docs`.
pub(crate) fn pages() -> Vec<Page> {
    let root = root();
    let mut found: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].iter().map(|name| root.join(name)).collect();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().map(|path| Page::read(&root, path)).collect()
}

impl Page {
    fn read(root: &Path, path: PathBuf) -> Self {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        Self { name, text: std::fs::read_to_string(&path).unwrap(), path }
    }

    pub(crate) fn named(name: &str) -> Self {
        Self::read(&root(), root().join(name))
    }

    /// Its code, fenced or indented.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut fence: Option<Block> = None;
        let mut indented = false;
        let mut blank = true;
        for (line, number) in self.text.lines().zip(1..) {
            if let Some(block) = fence.as_mut() {
                if line.trim_start().starts_with("```") {
                    blocks.extend(fence.take());
                } else {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                fence = Some(Block { language: language.to_owned(), text: String::new(), line: number });
                indented = false;
            } else if let Some(code) = line.strip_prefix("    ").filter(|_| blank || indented) {
                if !indented {
                    blocks.push(Block { language: String::new(), text: String::new(), line: number });
                }
                indented = true;
                let block = blocks.last_mut().unwrap();
                block.text.push_str(code);
                block.text.push('\n');
            } else {
                indented = false;
            }
            blank = line.is_empty();
        }
        assert!(fence.is_none(), "{}: a fence is not closed", self.name);
        blocks
    }

    /// Its lines outside of code, with their numbers.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut prose = Vec::new();
        for (line, number) in self.text.lines().zip(1..) {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced && !line.starts_with("    ") {
                prose.push((number, line));
            }
        }
        prose
    }

    /// What its links and pictures lead to, and where they stand.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.prose() {
            let line = without_code(line);
            for (at, _) in line.match_indices("](") {
                let rest = &line[at + 2..];
                let end = rest.find(')').unwrap_or_else(|| panic!("{}:{number}: an open link", self.name));
                links.push((number, rest[..end].to_owned()));
            }
            for (at, _) in line.match_indices("src=\"") {
                links.push((number, line[at + 5..].split('"').next().unwrap().to_owned()));
            }
        }
        links
    }

    /// Code within its lines.
    pub(crate) fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line) in self.prose() {
            let inner = line.split('`').skip(1).step_by(2);
            spans.extend(inner.map(|span| (number, span.replace("\\|", "|"))));
        }
        spans
    }

    /// What links to its headings say behind `#`, as GitHub and mdBook make it.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for (_, line) in self.prose() {
            let title = line.trim_start_matches('#');
            if title.len() == line.len() || !title.starts_with(' ') {
                continue;
            }
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let plain: String = title.trim().to_lowercase().chars().filter(kept).collect();
            let anchor = plain.replace(' ', "-");
            let before = anchors.iter().filter(|other| **other == anchor).count();
            anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
        }
        anchors
    }

    /// The rows of the table behind the heading `title`, without its head: cells as they stand.
    pub(crate) fn table(&self, title: &str) -> Vec<Vec<String>> {
        let mut lines = self.text.lines().skip_while(|line| line.trim_start_matches(['#', ' ']) != title);
        assert!(lines.next().is_some(), "{} has no heading {title}", self.name);
        lines
            .take_while(|line| !line.starts_with('#'))
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| {
                let cells = line.trim().trim_matches('|').replace("\\|", "\u{0}");
                cells.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
            })
            .collect()
    }
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}
