//! The record of orders: one line `id version` per order, appended by a single write,
//! so that several versions may share one file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

pub(crate) struct Orders {
    file: File,
}

impl Orders {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file })
    }

    pub(crate) fn note(&self, id: &str, version: &str) -> io::Result<()> {
        let line = format!("{id} {version}\n");
        let written = (&self.file).write(line.as_bytes())?;
        if written == line.len() {
            return Ok(());
        }
        Err(io::ErrorKind::WriteZero.into())
    }
}
