//! What README.md tells people to type is what is tested.

use std::path::Path;

const README: &str = include_str!("../../../README.md");

/// The script for a guest with nothing but `sh`, for the name `devbox` and the port `castra.0`.
pub(crate) fn boot_script() -> &'static str {
    between(after("**A guest with nothing but `sh`**"), "```sh\n", "```")
}

/// QEMU's options for virtio-serial, with a socket of ours.
pub(crate) fn serial_options(socket: &Path, qemu: (u32, u32)) -> Vec<String> {
    let chapter = after("**A QEMU guest over virtio-serial**");
    let options = between(chapter, "qemu-system-x86_64 …", "\n\n").replace('\\', "");
    let renamed = between(chapter, "(QEMU 9.2 and newer: `", "`");
    let options = options.replace("/run/castra/serial.sock", socket.to_str().unwrap());
    let options = if qemu >= (9, 2) { options.replace("reconnect=1", renamed) } else { options };
    options.split_whitespace().map(str::to_owned).collect()
}

/// Where a guest behind user-mode networking finds a broker, but for the port.
pub(crate) fn host_in_the_guest() -> &'static str {
    between(after("**A QEMU guest over TCP**"), "--connect tcp:", ":")
}

fn after(words: &str) -> &'static str {
    README.split_once(words).unwrap_or_else(|| panic!("README.md no longer says {words}")).1
}

fn between(text: &'static str, begin: &str, end: &str) -> &'static str {
    let text = text.split_once(begin).unwrap_or_else(|| panic!("README.md no longer says {begin}")).1;
    text.split_once(end).unwrap().0
}

#[test]
fn the_readme_still_says_how_guests_of_qemu_come_in() {
    assert!(boot_script().starts_with("exec 3<>/dev/virtio-ports/castra.0\n"), "{}", boot_script());
    assert!(boot_script().contains("hello vm:devbox"));
    assert_eq!(host_in_the_guest(), "10.0.2.2");
    let expected = |reconnect: &str| {
        let chardev = format!("socket,id=castra,path=/x.sock,{reconnect}");
        let port = "virtserialport,chardev=castra,name=castra.0";
        ["-chardev", &chardev, "-device", "virtio-serial", "-device", port].map(str::to_owned)
    };
    assert_eq!(serial_options(Path::new("/x.sock"), (7, 2)), expected("reconnect=1"));
    assert_eq!(serial_options(Path::new("/x.sock"), (10, 0)), expected("reconnect-ms=1000"));
}
