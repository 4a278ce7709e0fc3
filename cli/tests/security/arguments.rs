//! No secret is ever taken from the command line.

use crate::support::World;

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name =
            line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split_whitespace().next()?;
        (name != "help").then(|| name.to_owned())
    });
    names.collect()
}

/// Options and arguments of a command, as in `--token-file <FILE>`.
fn options(help: &str) -> Vec<String> {
    let usage = |line: &&str| line.trim_start().starts_with('-') || line.trim_start().starts_with(['<', '[']);
    help.lines().filter(usage).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn no_option_takes_a_secret() {
    let world = World::new();
    let mut waiting = vec![Vec::<String>::new()];
    let (mut commands, mut taken) = (0, Vec::new());
    while let Some(path) = waiting.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let help = world.castra(&args);
        assert_eq!(help.code, 0, "{args:?}: {help:?}");
        commands += 1;
        for option in options(&help.out) {
            let lower = option.to_lowercase();
            // A message's key is a name for it; `castra action send` says who sees a payload.
            let words = ["token", "secret", "passcode", "password", "bearer", "credential", "seed"];
            if words.iter().any(|word| lower.contains(word)) && option.contains('<') {
                taken.push(format!("castra {}: {option}", path.join(" ")));
            }
        }
        for name in subcommands(&help.out) {
            waiting.push([path.clone(), vec![name]].concat());
        }
    }
    assert!(commands > 40, "{commands}");
    // Files that hold one, and simulated worlds.
    let harmless =
        |option: &String| ["<FILE>", "--seed <S>", "--seeds"].iter().any(|mark| option.contains(mark));
    let secrets: Vec<&String> = taken.iter().filter(|option| !harmless(option)).collect();
    assert!(secrets.is_empty(), "{secrets:#?}");
    assert!(taken.iter().any(|option| option.contains("--token-file <FILE>")), "{taken:#?}");
}
