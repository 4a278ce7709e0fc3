//! MessagePack, read in place: a frame is walked once, with bounds, before
//! anything in it is believed; after that fields are found by name.

use rmp::Marker;

use super::Malformed;

/// Deepest nesting of a frame.
const DEPTH_MAX: usize = 8;

/// Most fields of the outermost map.
const FIELDS_MAX: usize = 64;

/// A value, as far as this protocol knows kinds of them. Absent is nil.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Text(&'a str),
    Binary(&'a [u8]),
    /// The items, one behind the other.
    Array(List<'a>),
    Map(List<'a>),
    /// Floats and extensions, and texts that are none.
    Other,
}

/// Items of an array or, two by two, of a map; known to be whole.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    /// Items or pairs.
    pub(super) count: usize,
    bytes: &'a [u8],
}

/// The outermost map of a frame.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(List<'a>);

impl<'a> Fields<'a> {
    /// Walks the whole frame.
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = frame;
        let Some(Value::Map(list)) = take(&mut rest, DEPTH_MAX) else {
            return Err(Malformed("a frame holds one map, whole and not too deep"));
        };
        if !rest.is_empty() {
            return Err(Malformed("something follows the map"));
        }
        if list.count > FIELDS_MAX {
            return Err(Malformed("too many fields"));
        }
        Ok(Self(list))
    }

    /// Part of a frame that was walked.
    pub(super) const fn within(list: List<'a>) -> Self {
        Self(list)
    }

    pub(super) fn get(&self, name: &str) -> Value<'a> {
        let mut pairs = self.0.pairs();
        pairs
            .find(|(key, _)| matches!(key, Value::Text(key) if *key == name))
            .map_or(Value::Nil, |pair| pair.1)
    }

    /// A field that may be absent or nil.
    pub(super) fn optional<T: Field<'a>>(&self, name: &'static str) -> Result<Option<T>, Malformed> {
        match self.get(name) {
            Value::Nil => Ok(None),
            value => T::from_value(value).map(Some).ok_or(Malformed(name)),
        }
    }

    pub(super) fn required<T: Field<'a>>(&self, name: &'static str) -> Result<T, Malformed> {
        T::from_value(self.get(name)).ok_or(Malformed(name))
    }
}

impl<'a> List<'a> {
    pub(super) fn items(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map_while(move |_| take(&mut rest, DEPTH_MAX))
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map_while(move |_| Some((take(&mut rest, DEPTH_MAX)?, take(&mut rest, DEPTH_MAX)?)))
    }
}

/// What a field may be.
pub(super) trait Field<'a>: Sized {
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! numbers {
    ($($kind:ty),*) => {$(
        impl Field<'_> for $kind {
            fn from_value(value: Value<'_>) -> Option<Self> {
                match value {
                    Value::Unsigned(number) => Self::try_from(number).ok(),
                    Value::Negative(number) => Self::try_from(number).ok(),
                    _ => None,
                }
            }
        }
    )*};
}

numbers!(u16, u32, u64, i32);

impl Field<'_> for bool {
    fn from_value(value: Value<'_>) -> Option<Self> {
        if let Value::Bool(flag) = value { Some(flag) } else { None }
    }
}

impl<'a> Field<'a> for &'a str {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Binary(bytes) = value { Some(bytes) } else { None }
    }
}

impl<'a> Field<'a> for List<'a> {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Array(list) = value { Some(list) } else { None }
    }
}

impl<'a> Field<'a> for Fields<'a> {
    fn from_value(value: Value<'a>) -> Option<Self> {
        if let Value::Map(list) = value { Some(Self(list)) } else { None }
    }
}

/// The next value, whole; `None`: it is not, or it is too deep.
fn take<'a>(rest: &mut &'a [u8], depth: usize) -> Option<Value<'a>> {
    let marker = Marker::from_u8(*rest.split_off_first()?);
    Some(match marker {
        Marker::Null => Value::Nil,
        Marker::True => Value::Bool(true),
        Marker::False => Value::Bool(false),
        Marker::FixPos(number) => Value::Unsigned(number.into()),
        Marker::U8 => Value::Unsigned(number(rest, 1)?),
        Marker::U16 => Value::Unsigned(number(rest, 2)?),
        Marker::U32 => Value::Unsigned(number(rest, 4)?),
        Marker::U64 => Value::Unsigned(number(rest, 8)?),
        Marker::FixNeg(number) => signed(number.into()),
        // Cut to their width, they keep their sign.
        Marker::I8 => signed((number(rest, 1)? as i8).into()),
        Marker::I16 => signed((number(rest, 2)? as i16).into()),
        Marker::I32 => signed((number(rest, 4)? as i32).into()),
        Marker::I64 => signed(number(rest, 8)? as i64),
        Marker::FixStr(length) => text(bytes(rest, length.into())?),
        Marker::Str8 => text(sized(rest, 1)?),
        Marker::Str16 => text(sized(rest, 2)?),
        Marker::Str32 => text(sized(rest, 4)?),
        Marker::Bin8 => Value::Binary(sized(rest, 1)?),
        Marker::Bin16 => Value::Binary(sized(rest, 2)?),
        Marker::Bin32 => Value::Binary(sized(rest, 4)?),
        Marker::FixArray(count) => Value::Array(list(rest, count.into(), 1, depth)?),
        Marker::Array16 => Value::Array(counted(rest, 2, 1, depth)?),
        Marker::Array32 => Value::Array(counted(rest, 4, 1, depth)?),
        Marker::FixMap(count) => Value::Map(list(rest, count.into(), 2, depth)?),
        Marker::Map16 => Value::Map(counted(rest, 2, 2, depth)?),
        Marker::Map32 => Value::Map(counted(rest, 4, 2, depth)?),
        Marker::F32 => other(rest, 4)?,
        Marker::F64 => other(rest, 8)?,
        Marker::FixExt1 => other(rest, 2)?,
        Marker::FixExt2 => other(rest, 3)?,
        Marker::FixExt4 => other(rest, 5)?,
        Marker::FixExt8 => other(rest, 9)?,
        Marker::FixExt16 => other(rest, 17)?,
        Marker::Ext8 => extension(rest, 1)?,
        Marker::Ext16 => extension(rest, 2)?,
        Marker::Ext32 => extension(rest, 4)?,
        Marker::Reserved => return None,
    })
}

fn bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    rest.split_off(..length)
}

fn number(rest: &mut &[u8], width: usize) -> Option<u64> {
    Some(bytes(rest, width)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

fn sized<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest, width)?).ok()?;
    bytes(rest, length)
}

fn counted<'a>(rest: &mut &'a [u8], width: usize, each: usize, depth: usize) -> Option<List<'a>> {
    let count = usize::try_from(number(rest, width)?).ok()?;
    list(rest, count, each, depth)
}

/// `count` times `each` values. Each takes a byte at least: a count that promises
/// more than there is ends at the end of the frame.
fn list<'a>(rest: &mut &'a [u8], count: usize, each: usize, depth: usize) -> Option<List<'a>> {
    let depth = depth.checked_sub(1)?;
    let start = *rest;
    if count.checked_mul(each)? > start.len() {
        return None;
    }
    for _ in 0..count * each {
        take(rest, depth)?;
    }
    Some(List { count, bytes: &start[..start.len() - rest.len()] })
}

fn other<'a>(rest: &mut &'a [u8], length: usize) -> Option<Value<'a>> {
    bytes(rest, length).map(|_| Value::Other)
}

fn extension<'a>(rest: &mut &'a [u8], width: usize) -> Option<Value<'a>> {
    let length = usize::try_from(number(rest, width)?).ok()?;
    other(rest, length.checked_add(1)?)
}

const fn signed<'a>(number: i64) -> Value<'a> {
    if number < 0 { Value::Negative(number) } else { Value::Unsigned(number.unsigned_abs()) }
}

fn text(bytes: &[u8]) -> Value<'_> {
    core::str::from_utf8(bytes).map_or(Value::Other, Value::Text)
}
