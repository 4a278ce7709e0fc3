use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

const PATIENCE: Duration = Duration::from_secs(20);

struct Fixture {
    directory: tempfile::TempDir,
    starts: Starts,
    ends: Receiver<Result<(), String>>,
    sender: std::sync::mpsc::Sender<Result<(), String>>,
}

impl Fixture {
    fn new(commands: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let commands = commands.iter().map(|(guest, command)| (name(guest), (*command).to_owned())).collect();
        let commands = Arc::new(Mutex::new(commands));
        let path = directory.path().to_owned();
        let starts = Starts::new(commands, Vec::new(), path.clone(), path);
        let (sender, ends) = channel();
        Self { directory, starts, ends, sender }
    }

    fn start(&self, guest: &str, patience: Duration) {
        let sender = self.sender.clone();
        self.starts.start(name(guest), patience, move |end| {
            let _ = sender.send(end.map_err(|error| error.message));
        });
    }

    fn end(&self) -> Result<(), String> {
        self.ends.recv_timeout(PATIENCE).expect("an end")
    }

    fn run(&self, guest: &str) -> Result<(), String> {
        self.start(guest, PATIENCE);
        self.end()
    }

    fn read(&self, name: impl AsRef<Path>) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }

    /// Waits for what nothing announces.
    fn until(&self, condition: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < end, "it did not come about");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn running(&self) -> usize {
        locked(&self.starts.running).guests.len()
    }
}

fn name(text: &str) -> GuestName {
    text.parse().expect("a name")
}

#[test]
fn a_command_runs_alone_with_its_surroundings_and_its_words_are_kept() {
    let it = Fixture::new(&[(
        "devbox",
        "echo \"$CASTRA_GUEST $CASTRA_STATE_DIR $PWD\"; echo trouble >&2; cat; ps -o pgid= -p $$ | \
         grep -qw $$ && echo leads",
    )]);
    let path = it.directory.path().display().to_string();
    assert_eq!(it.run("devbox"), Ok(()));
    let once = format!("devbox {path} /\ntrouble\nleads\n");
    assert_eq!(it.read("start-devbox.log"), once);
    assert_eq!(it.run("devbox"), Ok(()));
    assert_eq!(it.read("start-devbox.log"), once.repeat(2), "appended");
    let mode = it.directory.path().join("start-devbox.log").metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_command_that_fails_is_told_with_its_last_words() {
    let it = Fixture::new(&[
        ("loud", "echo first; printf 'no such domain: loud\\n\\n'; exit 3"),
        ("silent", "exit 4"),
        ("killed", "echo before; kill -9 $$"),
        ("absent", "/no/such/program --start"),
    ]);
    assert_eq!(it.run("loud"), Err("exited 3; its last line: no such domain: loud".to_owned()));
    let silent = it.run("silent").expect_err("it failed");
    assert!(silent.starts_with("exited 4, and wrote nothing to /"), "{silent}");
    assert_eq!(it.run("killed"), Err("was ended by signal 9; its last line: before".to_owned()));
    let absent = it.run("absent").expect_err("it failed");
    assert!(
        absent.starts_with("exited 127; its last line: ") && absent.contains("/no/such/program"),
        "{absent}"
    );
    let unknown = it.run("unknown").expect_err("no command");
    assert!(unknown.contains("no start command"), "{unknown}");
    // What a run before this one said is not this one's.
    locked(&it.starts.commands).insert(name("loud"), "exit 5".to_owned());
    assert!(it.run("loud").expect_err("it failed").starts_with("exited 5, and wrote nothing"));
    assert_eq!(it.running(), 0);
}

#[test]
fn a_last_line_without_an_end_is_cut() {
    let it = Fixture::new(&[("devbox", "i=0; while [ $i -lt 9000 ]; do printf x; i=$((i+1)); done; exit 1")]);
    assert_eq!(it.run("devbox"), Err(format!("exited 1; its last line: {}", "x".repeat(LINE_MAX))));
}

#[test]
fn a_command_that_goes_on_is_left_alone_after_a_while_started_once_and_buried() {
    let it = Fixture::new(&[(
        "devbox",
        "echo $$ > \"$CASTRA_STATE_DIR/pid\"; \
         while [ -d \"$CASTRA_STATE_DIR\" ] && [ ! -e \"$CASTRA_STATE_DIR/go\" ]; do sleep 0.02; done",
    )]);
    it.start("devbox", Duration::from_millis(50));
    assert_eq!(it.end(), Ok(()));
    it.until(|| it.directory.path().join("pid").exists() && !it.read("pid").is_empty());
    let pid = it.read("pid").trim().to_owned();
    let process = Path::new("/proc").join(&pid);
    assert!(process.exists());
    assert_eq!(it.run("devbox"), Ok(()), "at once");
    assert_eq!(it.read("pid").trim(), pid, "not a second one");
    std::fs::write(it.directory.path().join("go"), "").expect("a file");
    it.until(|| !process.exists());
    it.until(|| it.running() == 0);
}

#[test]
fn at_most_sixteen_are_waited_for_at_once_and_those_left_alone_do_not_count() {
    let names: Vec<String> = (0..=WATCHED_MAX).map(|index| format!("vm{index}")).collect();
    let command =
        "while [ -d \"$CASTRA_STATE_DIR\" ] && [ ! -e \"$CASTRA_STATE_DIR/go\" ]; do sleep 0.02; done";
    let it = Fixture::new(&names.iter().map(|name| (name.as_str(), command)).collect::<Vec<_>>());
    it.start(&names[0], Duration::ZERO);
    assert_eq!(it.end(), Ok(()));
    for name in &names[1..] {
        it.start(name, PATIENCE);
    }
    assert_eq!(it.running(), names.len());
    locked(&it.starts.commands).insert(name("extra"), "exit 0".to_owned());
    assert!(it.run("extra").expect_err("too many").starts_with("busy: 16 guests"));
    std::fs::write(it.directory.path().join("go"), "").expect("a file");
    for _ in &names[1..] {
        assert_eq!(it.end(), Ok(()));
    }
    assert_eq!(it.run("extra"), Ok(()));
    it.until(|| it.running() == 0);
}

#[test]
fn a_long_log_is_emptied_before_a_run_and_a_link_is_not_followed() {
    let it = Fixture::new(&[("devbox", "echo new"), ("linked", "echo new")]);
    let path = it.directory.path().join("start-devbox.log");
    std::fs::write(&path, vec![b'x'; LOG_MAX as usize]).expect("a file");
    assert_eq!(it.run("devbox"), Ok(()));
    assert_eq!(path.metadata().expect("a file").len(), LOG_MAX + 4);
    assert_eq!(it.run("devbox"), Ok(()));
    assert_eq!(it.read("start-devbox.log"), "new\n");
    let victim = it.directory.path().join("victim");
    std::fs::write(&victim, "untouched").expect("a file");
    std::os::unix::fs::symlink(&victim, it.directory.path().join("start-linked.log")).expect("a link");
    assert!(it.run("linked").expect_err("a link").starts_with("the start command can't be run"));
    assert_eq!(it.read("victim"), "untouched");
}

#[test]
fn a_launcher_gets_the_command_as_its_last_argument() {
    let mut it = Fixture::new(&[("devbox", "a command; with $signs")]);
    it.starts.launcher = ["/bin/echo", "first", "second"].map(OsString::from).to_vec();
    assert_eq!(it.run("devbox"), Ok(()));
    assert_eq!(it.read("start-devbox.log"), "first second a command; with $signs\n");
}
