//! Values in memory that has a descriptor, to be sent beside a packet.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest value read, in bytes.
const VALUE_MAX: u64 = 256 * 1024 * 1024;

/// Writes a value that never changes again.
pub(super) fn write(value: &impl Serialize) -> io::Result<OwnedFd> {
    let bytes = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
    let mut file = File::from(memfd_create(c"castra", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(&bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Reads one.
pub(super) fn read<T: DeserializeOwned>(memory: OwnedFd) -> io::Result<T> {
    let file = File::from(memory);
    let length = file.metadata()?.len();
    if length > VALUE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    rmp_serde::from_slice(&bytes).map_err(io::Error::other)
}
