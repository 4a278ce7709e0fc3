//! Links, and the book's table of contents.

use std::collections::BTreeSet;

use crate::markdown::{Page, pages, root};

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let pages = pages();
    let mut wrong = Vec::new();
    for page in &pages {
        for (line, link) in page.links() {
            if let Err(why) = check(page, &link) {
                wrong.push(format!("{}:{line}: {link}: {why}", page.name));
            }
        }
    }
    assert!(pages.iter().map(|page| page.links().len()).sum::<usize>() > 200, "links are not found any more");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn check(page: &Page, link: &str) -> Result<(), String> {
    if link.starts_with("https://") || link.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
    let target = target.canonicalize().map_err(|_| "there is no such file".to_owned())?;
    let name = target.strip_prefix(root().canonicalize().unwrap()).map_err(|_| "it is outside".to_owned())?;
    let docs = |name: &str| name.starts_with("docs/");
    if docs(&page.name) && !docs(name.to_str().unwrap()) {
        return Err("the book has nothing outside of docs: name it without a link".into());
    }
    let contents = page.name == "docs/SUMMARY.md";
    if docs(&page.name) && name.ends_with("README.md") && !contents {
        return Err("mdBook calls that page index: give it another name".into());
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let anchors = Page::named(name.to_str().unwrap()).anchors();
    if anchors.iter().any(|other| other == anchor) {
        return Ok(());
    }
    Err(format!("no heading makes #{anchor}; there are {}", anchors.join(", ")))
}

#[test]
fn the_books_contents_name_every_page_once() {
    let summary = Page::named("docs/SUMMARY.md");
    let named: Vec<String> = summary.links().into_iter().map(|(_, link)| format!("docs/{link}")).collect();
    let once: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(once.len(), named.len(), "a page is named twice: {named:?}");
    let pages = pages();
    let there = pages.iter().map(|page| page.name.as_str());
    let there: BTreeSet<&str> =
        there.filter(|name| name.starts_with("docs/") && *name != "docs/SUMMARY.md").collect();
    assert_eq!(once, there);
}

#[test]
fn every_picture_has_a_place_and_stands_on_its_own() {
    let pages = pages();
    let links: Vec<String> = pages.iter().flat_map(Page::links).map(|(_, link)| link).collect();
    for entry in std::fs::read_dir(root().join("docs/pictures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(links.iter().any(|link| link.ends_with(&name)), "no page shows docs/pictures/{name}");
        if name.ends_with(".svg") {
            let text = std::fs::read_to_string(root().join("docs/pictures").join(&name)).unwrap();
            assert!(!text.contains("href=\"http"), "{name} fetches something");
        }
    }
}
