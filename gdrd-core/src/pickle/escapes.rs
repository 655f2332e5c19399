//! The texts of protocol 0, which stand between quotes or in a line of their own.

use std::borrow::Cow;

/// The bytes that a string literal of Python 2 stands for; what is no escape stands for itself.
pub(super) fn string(literal: &[u8]) -> Cow<'_, [u8]> {
    if !literal.contains(&b'\\') {
        return literal.into();
    }
    let mut bytes = Vec::with_capacity(literal.len());
    let mut rest = literal;
    while let Some((&first, behind)) = rest.split_first() {
        let escape = if first == b'\\' { behind.first() } else { None };
        let (byte, length) = match escape {
            Some(b'x') => match hexadecimal(rest.get(2..4)) {
                Some(code) => (code as u8, 4),
                None => (first, 1),
            },
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'a') => (7, 2),
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'v') => (11, 2),
            Some(quoted @ (b'\\' | b'\'' | b'"')) => (*quoted, 2),
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes.into()
}

/// The text of a line in `raw-unicode-escape`: Latin-1, and the code points of `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn raw_unicode(line: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(line)
        && line.is_ascii()
        && !line.contains(&b'\\')
    {
        return text.into();
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let digits = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => 0,
        };
        let escaped = hexadecimal(rest.get(2..2 + digits).filter(|_| digits > 0)).and_then(char::from_u32);
        text.push(escaped.unwrap_or(char::from(first)));
        rest = &rest[if escaped.is_some() { 2 + digits } else { 1 }..];
    }
    text.into()
}

fn hexadecimal(digits: Option<&[u8]>) -> Option<u32> {
    let digits = std::str::from_utf8(digits?).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_stand_for_their_bytes() {
        assert_eq!(&*string(br"a\xff\\x\n\'\x4"), b"a\xff\\x\n'\\x4");
        assert!(matches!(string(b"plain"), Cow::Borrowed(b"plain")));
        assert_eq!(raw_unicode(b"a\\u000a\xe9\\u005cx\\U0001f600"), "a\n\u{e9}\\x\u{1f600}");
        assert_eq!(raw_unicode(b"\\u12"), "\\u12");
    }
}
