//! The four forms.

use super::quote::{line, shell, unit};
use super::{Plan, TOKEN};

/// The unit of a guest with systemd is the one that is shipped, with its words filled in.
const UNIT: &str = include_str!("../../../packaging/systemd/castra-agent.service");

/// How to get the program.
const STATIC: &str = "cargo rustc --release -p castra --bin castra -- -C target-feature=+crt-static";

/// Comment lines: what it is, where the program comes from, and whether it is a secret.
fn head(plan: &Plan, what: &str) -> String {
    let mut head = String::new();
    if plan.secret().is_some() {
        head += "# SECRET: this text contains the guest's token. Whoever reads it can be this guest.\n";
    }
    let Plan { name, binary, .. } = plan;
    head += &format!(
        "# castra agent of the guest {name}: {what}\n\
         # The program has to be in the guest already, as {binary}: one file, which needs no\n\
         # library, of the same version as the broker's. From castra's sources:\n\
         #   {STATIC}\n"
    );
    if let (Some(path), None) = (plan.token_path(), plan.secret()) {
        head += &format!(
            "# Its token has to be there too, as {path}, owner root, mode 0600: on the host,\n\
             #   castra token issue {name} --out FILE\n"
        );
    }
    head
}

/// A unit.
pub(super) fn systemd(plan: &Plan) -> String {
    let what = "/etc/systemd/system/castra-agent.service; then\n#   systemctl enable --now castra-agent";
    head(plan, what) + &body(plan)
}

fn body(plan: &Plan) -> String {
    let words: Vec<String> = [plan.binary.clone()].into_iter().chain(plan.arguments(None)).collect();
    let shipped = UNIT.find("[Unit]").map_or(UNIT, |begin| &UNIT[begin..]);
    let mut body = String::new();
    for given in shipped.lines() {
        if given.starts_with("Environment=") || given.starts_with("EnvironmentFile=") {
            continue;
        }
        if given.starts_with("LoadCredential=") {
            if let Some(path) = plan.token_path() {
                body += &format!("LoadCredential=castra.token:{}\n", path.replace('%', "%%"));
            }
        } else if given.starts_with("ExecStart=") {
            body += &format!("ExecStart={}\n", line(&words, unit));
        } else {
            body += given;
            body.push('\n');
        }
        if let (Some(device), "DevicePolicy=closed") = (&plan.device, given) {
            body += &format!("DeviceAllow={} rw\n", unit(device));
        }
    }
    body
}

/// User data.
pub(super) fn cloud_init(plan: &Plan) -> String {
    let mut text = "#cloud-config\n".to_owned() + &head(plan, "user data for cloud-init");
    if plan.secret().is_some() {
        text += "# User data can be read by whoever reaches the metadata service or the seed's image, and\n\
            # stays in /var/lib/cloud of the guest.\n";
    }
    text += "write_files:\n";
    if let Some((path, token)) = plan.secret() {
        text += &file(path, "0600", &format!("{token}\n"));
    }
    text += &file("/etc/systemd/system/castra-agent.service", "0644", &body(plan));
    text + "runcmd:\n\
        \x20 - [systemctl, daemon-reload]\n\
        \x20 - [systemctl, enable, --now, castra-agent.service]\n"
}

/// An entry of `write_files`. The mode is a string, or it would be read as a decimal number.
fn file(path: &str, mode: &str, content: &str) -> String {
    // Printable ASCII in quotes of this sort is the same in JSON and in YAML.
    let path = serde_json::Value::from(path);
    let mut text =
        format!("  - path: {path}\n    owner: root:root\n    permissions: '{mode}'\n    content: |\n");
    for line in content.lines() {
        text += &if line.is_empty() { "\n".to_owned() } else { format!("      {line}\n") };
    }
    text
}

/// An init script.
pub(super) fn openrc(plan: &Plan) -> String {
    let arguments = line(&plan.arguments(plan.token_path()), shell);
    let what = "/etc/init.d/castra-agent (mode 0755); then\n\
        #   rc-update add castra-agent && rc-service castra-agent start";
    // Both are read twice: here, and by the script that starts them.
    format!(
        "#!/sbin/openrc-run\n{}\n\
         name='castra agent'\n\
         description='Keeps this guest reachable'\n\
         supervisor=supervise-daemon\n\
         command={}\n\
         command_args={}\n\
         respawn_delay=1\n\
         respawn_max=0\n\
         umask=077\n\
         output_log=/var/log/castra-agent.log\n\
         error_log=/var/log/castra-agent.log\n\
         \n\
         depend() {{\n\
         \x20   after net\n\
         }}\n",
        head(plan, what),
        shell(&shell(&plan.binary)),
        shell(&arguments),
    )
}

/// A script that becomes the agent.
pub(super) fn sh(plan: &Plan) -> String {
    let what = "run it as root: by hand, from an inittab\n\
        # (respawn), as a runit service or as the entry point of a container. It becomes the agent.";
    let mut text = format!("#!/bin/sh\n{}set -eu\numask 077\n", head(plan, what));
    text += &format!(
        "castra={}\n\
         [ -x \"$castra\" ] || {{ echo \"castra is not there: put the static build at $castra\" >&2; exit 1; }}\n",
        shell(&plan.binary)
    );
    let mut arguments = plan.arguments(plan.token_path());
    if let Some(prefix) = &plan.prefix {
        let place = |end: String| format!("{prefix}/{end}");
        let name = plan.name;
        arguments.extend(["--inbox".to_owned(), place(format!("var/lib/castra/{name}"))]);
        arguments.extend(["--socket".to_owned(), place(format!("run/castra/{name}/agent.sock"))]);
    }
    if let Some((path, token)) = plan.secret() {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        text += &format!(
            "token={}\n\
             mkdir -p {}\n\
             # Written beside it and renamed: whoever reads it finds all of it.\n\
             cat >\"$token.new\" <<'END'\n{token}\nEND\n\
             mv \"$token.new\" \"$token\"\n",
            shell(path),
            shell(if folder.is_empty() { "/" } else { folder }),
        );
    } else if plan.token.is_some() {
        text += &format!(
            "[ -r {0} ] || {{ echo {1} >&2; exit 1; }}\n",
            shell(plan.token_path().unwrap_or(TOKEN)),
            shell(&format!("the token is not in {}", plan.token_path().unwrap_or(TOKEN))),
        );
    }
    text + &format!("exec \"$castra\" {}\n", line(&arguments, shell))
}
