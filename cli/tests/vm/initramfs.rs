//! A cpio archive of the kind that the kernel unpacks as its first file system ("newc").

pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

impl Archive {
    pub(crate) const fn new() -> Self {
        Self { bytes: vec![], entries: 0 }
    }

    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, &[]);
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, FILE | permissions, content);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap();
        let name_size = u32::try_from(path.len()).unwrap() + 1;
        // inode, mode, uid, gid, links, time, size, device (2), its own device (2), name's size, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[test]
fn an_archive_is_headers_names_and_contents_each_filled_up_to_four_bytes() {
    let mut archive = Archive::new();
    archive.folder("bin");
    archive.file("init", 0o755, b"hello");
    let bytes = archive.finish();
    let header = |inode: &str, mode: &str, size: &str, name_size: &str| {
        let zero = "0".repeat(8);
        [
            "070701", inode, mode, &zero, &zero, "00000001", &zero, size, &zero, &zero, &zero, &zero,
            name_size, &zero,
        ]
        .concat()
    };
    let expected = [
        header("00000001", "000041ed", "00000000", "00000004"),
        "bin\0\0\0".into(),
        header("00000002", "000081ed", "00000005", "00000005"),
        "init\0\0hello\0\0\0".into(),
        header("00000003", "00000000", "00000000", "0000000b"),
        "TRAILER!!!\0\0\0\0".into(),
    ];
    assert_eq!(String::from_utf8(bytes).unwrap(), expected.concat());
}
