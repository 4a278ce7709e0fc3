//! MessagePack, written: maps with names, numbers as short as they go.

use alloc::vec::Vec;

/// Writes a map behind its length. Writing to memory can't fail.
pub(super) struct Packer<'a>(pub(super) &'a mut Vec<u8>);

impl Packer<'_> {
    pub(super) fn map(&mut self, pairs: usize) -> &mut Self {
        // Counts are ours, and small.
        let _ = rmp::encode::write_map_len(self.0, pairs as u32);
        self
    }

    pub(super) fn array(&mut self, items: usize) -> &mut Self {
        let _ = rmp::encode::write_array_len(self.0, items as u32);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        let _ = rmp::encode::write_str(self.0, text);
        self
    }

    pub(super) fn field_text(&mut self, name: &str, text: &str) -> &mut Self {
        self.text(name).text(text)
    }

    pub(super) fn number(&mut self, name: &str, number: impl Into<u64>) -> &mut Self {
        let _ = rmp::encode::write_uint(self.text(name).0, number.into());
        self
    }

    pub(super) fn integer(&mut self, name: &str, number: impl Into<i64>) -> &mut Self {
        let _ = rmp::encode::write_sint(self.text(name).0, number.into());
        self
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) -> &mut Self {
        let _ = rmp::encode::write_bool(self.text(name).0, flag);
        self
    }

    pub(super) fn binary(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        let _ = rmp::encode::write_bin(self.text(name).0, bytes);
        self
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, name: &str, texts: &[T]) -> &mut Self {
        self.text(name).array(texts.len());
        for text in texts {
            self.text(text.as_ref());
        }
        self
    }

    pub(super) fn maybe_text(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.field_text(name, text);
        }
        self
    }

    pub(super) fn maybe_number(&mut self, name: &str, number: Option<impl Into<u64>>) -> &mut Self {
        if let Some(value) = number {
            self.number(name, value);
        }
        self
    }

    pub(super) fn maybe_integer(&mut self, name: &str, number: Option<i32>) -> &mut Self {
        if let Some(value) = number {
            self.integer(name, value);
        }
        self
    }

    pub(super) fn maybe_flag(&mut self, name: &str, flag: Option<bool>) -> &mut Self {
        if let Some(value) = flag {
            self.flag(name, value);
        }
        self
    }
}
