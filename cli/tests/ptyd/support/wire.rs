//! The wire, written and read by somebody else's MessagePack: frames, and values by name.

use rmpv::Value;

/// The fields of a map, in this order.
pub(crate) type Fields = Vec<(Value, Value)>;

/// `fields! { "name" => value, … }`
macro_rules! fields {
    ($($name:expr => $value:expr),* $(,)?) => {
        vec![$((::rmpv::Value::from($name), ::rmpv::Value::from($value))),*]
    };
}
pub(crate) use fields;

/// A request's fields with its type and number before them.
pub(crate) fn numbered(kind: &str, seq: u32, mut fields: Fields) -> Value {
    let mut all = fields! { "type" => kind, "seq" => seq };
    all.append(&mut fields);
    Value::Map(all)
}

/// The frame of a value.
pub(crate) fn frame(value: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    rmpv::encode::write_value(&mut body, value).unwrap();
    framed(&body)
}

/// A frame around any bytes.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// Bytes as they are sent: `bin`, never text.
pub(crate) fn bin(bytes: impl AsRef<[u8]>) -> Value {
    Value::Binary(bytes.as_ref().to_vec())
}

/// Texts.
pub(crate) fn texts(words: &[&str]) -> Value {
    Value::Array(words.iter().map(|word| Value::from(*word)).collect())
}

/// A program for `create`: a line for the shell, without a shell's prompt.
pub(crate) fn sh(script: &str) -> Value {
    texts(&["/bin/sh", "-c", script])
}

/// Bytes from a dump: blanks are skipped.
pub(crate) fn hex(dump: &str) -> Vec<u8> {
    let digits: Vec<u32> = dump.chars().filter_map(|character| character.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// The one value in a frame's body.
pub(crate) fn value(body: &[u8]) -> Value {
    let mut rest = body;
    let value = rmpv::decode::read_value(&mut rest).unwrap_or_else(|error| panic!("{error}: {body:x?}"));
    assert_eq!(rest.len(), 0, "something follows {value}");
    value
}

/// A number at `name`.
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

/// A text at `name`.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// A flag at `name`.
pub(crate) fn flag(value: &Value, name: &str) -> bool {
    value[name].as_bool().unwrap_or_else(|| panic!("no flag {name} in {value}"))
}

/// Whether there is a field of that name, nil or not.
pub(crate) fn has(value: &Value, name: &str) -> bool {
    keys(value).contains(&name)
}

/// The names of a map's fields, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let pairs = value.as_map().unwrap_or_else(|| panic!("no map: {value}"));
    pairs.iter().map(|(key, _)| key.as_str().unwrap_or_else(|| panic!("no text as key: {value}"))).collect()
}
