//! Writing JSON as text, piece by piece, so that nothing is kept that was written.

use std::fmt::Display;

/// An object that is being written.
pub(crate) struct Object<'a> {
    to: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(to: &'a mut Vec<u8>) -> Object<'a> {
        to.push(b'{');
        Object { to, first: true }
    }

    /// Writes the name of a field; its value is written to what is returned.
    pub(crate) fn field(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.to.push(b',');
        }
        self.first = false;
        string(self.to, name);
        self.to.push(b':');
        self.to
    }

    pub(crate) fn string(&mut self, name: &str, value: impl AsRef<str>) {
        string(self.field(name), value.as_ref());
    }

    /// Numbers that are wider than 53 bits go as text, so that no reader rounds them.
    pub(crate) fn text(&mut self, name: &str, value: impl Display) {
        display(self.field(name), value);
    }

    /// The same, or `null`.
    pub(crate) fn text_or_null(&mut self, name: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.field(name).extend_from_slice(b"null"),
        }
    }

    /// JSON that was decoded, or the bytes under the name with `_hex` behind it.
    pub(crate) fn decoded(&mut self, name: &str, json: Option<&[u8]>, bytes: &[u8]) {
        match json {
            Some(json) => self.field(name).extend_from_slice(json),
            None => self.hex(&format!("{name}_hex"), bytes),
        }
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        number(self.field(name), &value);
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.field(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(crate) fn hex(&mut self, name: &str, bytes: &[u8]) {
        hex(self.field(name), bytes);
    }

    pub(crate) fn end(self) {
        self.to.push(b'}');
    }
}

/// Writes a list, one element after the other.
pub(crate) fn list<T>(
    to: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    to.push(b'[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        write(to, item);
    }
    to.push(b']');
}

/// Writes a string, with what must be escaped escaped.
pub(crate) fn string(to: &mut Vec<u8>, value: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        to.push(b'"');
        to.extend_from_slice(value.as_bytes());
        to.push(b'"');
        return;
    }
    // Writing to memory does not fail.
    serde_json::to_writer(to, value).unwrap_or_default();
}

/// Writes something as a string that needs no escapes.
pub(crate) fn display(to: &mut Vec<u8>, value: impl Display) {
    use std::io::Write;
    write!(to, "\"{value}\"").unwrap_or_default();
}

/// Writes a number.
pub(crate) fn number(to: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing to memory does not fail.
    serde_json::to_writer(to, value).unwrap_or_default();
}

/// Writes bytes as a string of two digits each.
pub(crate) fn hex(to: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    to.push(b'"');
    to.reserve(bytes.len() * 2 + 1);
    for byte in bytes {
        to.push(DIGITS[usize::from(byte >> 4)]);
        to.push(DIGITS[usize::from(byte & 15)]);
    }
    to.push(b'"');
}

/// Reads what [`hex`] wrote, without the quotes.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
