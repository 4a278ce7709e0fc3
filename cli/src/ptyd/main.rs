//! `castra-ptyd`: the castra program under the published daemon's name, as `cargo install`
//! puts it beside `castra`. A link of this name to `castra` is the same.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // The one beside it is of the same version; else whichever the shell would find.
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("castra"));
    let castra = beside.filter(|castra| castra.exists()).unwrap_or_else(|| "castra".into());
    let error = Command::new(&castra).arg0("castra-ptyd").args(std::env::args_os().skip(1)).exec();
    eprintln!("castra-ptyd: can't run {}: {error}; install castra beside it", castra.display());
    70.into()
}
