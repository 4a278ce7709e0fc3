//! As much of the shell as the documents' command lines use.

/// Each simple command in `text`, as its words.
pub(crate) fn commands(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    // The next word is where a redirection leads.
    let mut redirected = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if let Some(open) = quote {
            if character == open {
                quote = None;
            } else {
                word.get_or_insert_default().push(character);
            }
            continue;
        }
        match character {
            '\'' | '"' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            '\\' => match characters.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '$' if characters.peek() == Some(&'(') => {
                let mut depth = 0;
                let inner: String = characters
                    .by_ref()
                    .take_while(|inner| {
                        depth += i32::from(*inner == '(') - i32::from(*inner == ')');
                        depth > 0
                    })
                    .collect();
                word.get_or_insert_default().push_str(&format!("${inner})"));
            }
            '#' if word.is_none() => while characters.next_if(|next| *next != '\n').is_some() {},
            '<' | '>' => {
                // `2>` and `&>` belong to the redirection.
                if word.as_deref().is_some_and(|word| !matches!(word, "1" | "2")) {
                    end(&mut word, &mut redirected, &mut all);
                }
                word = None;
                while characters.next_if(|next| matches!(next, '<' | '>' | '&')).is_some() {}
                redirected = true;
            }
            ' ' | '\t' => end(&mut word, &mut redirected, &mut all),
            '\n' | ';' | '|' | '&' | '(' | ')' => {
                end(&mut word, &mut redirected, &mut all);
                all.push(Vec::new());
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    end(&mut word, &mut redirected, &mut all);
    all.retain(|words| !words.is_empty());
    all
}

fn end(word: &mut Option<String>, redirected: &mut bool, all: &mut [Vec<String>]) {
    if let Some(word) = word.take() {
        if std::mem::take(redirected) {
            return;
        }
        all.last_mut().unwrap().push(word);
    }
}

/// A shell's prompt, also one that says where it is, such as `devbox$ `.
pub(crate) fn prompted(line: &str) -> Option<&str> {
    let (prompt, command) = line.split_once("$ ")?;
    prompt.chars().all(|c| c.is_ascii_alphanumeric()).then(|| command.trim_start())
}

/// The command lines in a block with prompts, each with what it prints.
pub(crate) fn session(text: &str) -> Vec<(String, Vec<String>)> {
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(command) = prompted(line) {
            steps.push((command.to_owned(), Vec::new()));
        } else if let Some((command, printed)) = steps.last_mut() {
            if printed.is_empty() && command.ends_with('\\') {
                command.push('\n');
                command.push_str(line);
            } else {
                printed.push(line.to_owned());
            }
        }
    }
    steps
}

#[test]
fn command_lines_are_taken_apart_as_a_shell_does() {
    let words = |text: &str| commands(text).into_iter().map(|words| words.join("·")).collect::<Vec<_>>();
    assert_eq!(words("A=b castra wait x --for y && ssh x"), ["A=b·castra·wait·x·--for·y", "ssh·x"]);
    assert_eq!(words("castra status --json | jq '.a | .b'"), ["castra·status·--json", "jq·.a | .b"]);
    assert_eq!(words("castra agent \\\n  --name x 2>log & # so"), ["castra·agent·--name·x"]);
    assert_eq!(words("castra peer send a b - < notes.txt"), ["castra·peer·send·a·b·-"]);
    assert_eq!(words("x=$(castra info | wc -l); y"), ["x=$(castra info | wc -l)", "y"]);
}
