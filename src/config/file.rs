//! The configuration file (F-4): YAML with etcd's keys. Most keys are names of flags, so that the flag table decides
//! what they take; the rest are maps whose keys stand for flags with longer names, in the tables of `keys`. What is in the
//! file is turned into the text that the flag would have had on the command line, so that a value has one reader.
//!
//! Types are as strict as in etcd: a number is no string, lists are lists, and a duration is an integer of nanoseconds.
//! Unknown keys are ignored, with a note. An error names key, line and column. Pure, but for [`Settings::from_file`].
//! Any text is read or refused, with bounds on its length, depth and aliases.

mod keys;

pub use keys::key_of;

use super::alias::Target;
use super::args::{Origin, Settings};
use super::flags::{Flag, Shape};
use super::{Error, Note};
use keys::{LISTS, Place, Section, TOP};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::path::Path;

/// Bytes that a file may have.
const FILE_BYTES_MAX: u64 = 64 << 10;

impl Settings {
    /// Reads the file at `path`, on top of the defaults.
    pub fn from_file(path: &Path) -> Result<Settings, Error> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let size =
            std::fs::metadata(path).map_err(|e| failed(format!("open {}: {e}", path.display())))?.len();
        if size > FILE_BYTES_MAX {
            return Err(failed(format!("it has {size} bytes, more than {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Settings::from_yaml(&text).map_err(failed)
    }

    /// Reads the text of a file. Of several documents the first one counts.
    pub fn from_yaml(text: &str) -> Result<Settings, String> {
        let mut settings = Settings { origin: Origin::File, ..Settings::default() };
        let Some(document) = serde_norway::Deserializer::from_str(text).next() else { return Ok(settings) };
        let section = SectionReader { section: &TOP, path: String::new(), settings: &mut settings };
        section.deserialize(document).map_err(|e| format!("error reading YAML: {e}"))?;
        Ok(settings)
    }
}

/// Reads one map. Nothing at all is an empty map.
struct SectionReader<'a> {
    section: &'static Section,
    path: String,
    settings: &'a mut Settings,
}

impl<'de> DeserializeSeed<'de> for SectionReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SectionReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of settings")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            if key == "<<" {
                return Err(de::Error::custom("merge keys are not supported: write the settings out"));
            }
            if let Some(section) = self.section.map(&key) {
                map.next_value_seed(SectionReader { section, path, settings: self.settings })?;
                continue;
            }
            match self.section.key(&key) {
                Some(place) => map.next_value_seed(FlagReader { place, path, settings: self.settings })?,
                None => {
                    map.next_value::<de::IgnoredAny>()?;
                    // At the top, a flag that has its place in a map would be forgotten without a word in etcd.
                    let place = Flag::by_name(&path).and_then(key_of);
                    self.settings.notes.push(Note::KeyUnknown { key: path, place });
                }
            }
        }
        Ok(())
    }
}

/// A key, which YAML allows to be a number or the like.
struct Key(String);

impl<'de> de::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let key = |value| match value {
            Value::Text(text) | Value::Number(text) => Ok(Key(text)),
            Value::Bool(value) => Ok(Key(value.to_string())),
            Value::Null | Value::List(_) | Value::Map => Err("a key must be a word".to_owned()),
        };
        deserializer.deserialize_any(Then(key))
    }
}

/// Reads the value of one flag.
struct FlagReader<'a> {
    place: Place,
    path: String,
    settings: &'a mut Settings,
}

impl<'de> DeserializeSeed<'de> for FlagReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Then(|value| self.store(value)))
    }
}

impl FlagReader<'_> {
    fn store(self, value: Value) -> Result<(), String> {
        let target = match self.place {
            Place::Target(target) => target,
            Place::Names(to) => {
                if let Some(names) = value.into_names()? {
                    to(&mut self.settings.draft, names);
                }
                return Ok(());
            }
            Place::Switch(to) => {
                if let Some(text) = value.into_text(Shape::Bool)? {
                    to(&mut self.settings.draft, text == "true");
                }
                return Ok(());
            }
        };
        let shape = match target {
            Target::Flag(flag) | Target::Renamed(flag) if LISTS.contains(&flag.name) => Shape::List,
            Target::Flag(flag) | Target::Renamed(flag) => flag.shape(),
            Target::Gate(_) => Shape::Bool,
        };
        let Some(text) = value.into_text(shape)? else { return Ok(()) };
        if let Some(new) = target.new_name() {
            self.settings.notes.push(Note::Renamed { old: self.path, new });
        }
        // An empty text is no value in the file where it is none on the command line.
        if text.is_empty() && !matches!(shape, Shape::Text) {
            return Ok(());
        }
        self.settings.set(target, &text).map_err(|e| e.to_string())
    }
}

/// A value as YAML has it.
enum Value {
    Null,
    Bool(bool),
    /// In decimal.
    Number(String),
    Text(String),
    List(Vec<Value>),
    Map,
}

impl Value {
    /// Name of the type in messages, as Go's JSON reader calls it.
    fn type_name(&self) -> String {
        match self {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Number(number) => format!("number {number}"),
            Value::Text(_) => "string".into(),
            Value::List(_) => "array".into(),
            Value::Map => "object".into(),
        }
    }

    /// The elements of a list; nothing for null.
    fn into_names(self) -> Result<Option<Vec<String>>, String> {
        let list = match self {
            Value::Null => return Ok(None),
            Value::List(list) => list,
            other => return Err(mismatch(&other, Shape::List)),
        };
        let name = |value| match value {
            Value::Text(text) => Ok(text),
            other => Err(mismatch(&other, Shape::Text)),
        };
        list.into_iter().map(name).collect::<Result<_, _>>().map(Some)
    }

    /// The text that the flag would have on the command line; nothing for null, which leaves the default.
    fn into_text(self, shape: Shape) -> Result<Option<String>, String> {
        Ok(Some(match (shape, self) {
            (_, Value::Null) => return Ok(None),
            (Shape::Bool, Value::Bool(value)) => value.to_string(),
            // Words of YAML 1.1, in which etcd reads its file.
            (Shape::Bool, Value::Text(text)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" => "true".into(),
                "no" | "off" | "n" => "false".into(),
                _ => return Err(mismatch(&Value::Text(text), shape)),
            },
            (Shape::Int, Value::Number(number)) if is_integer(&number) => number,
            (Shape::Uint, Value::Number(number)) if number.bytes().all(|b| b.is_ascii_digit()) => number,
            (Shape::Duration, Value::Number(number)) if is_integer(&number) => number + "ns",
            (Shape::Text | Shape::Urls, Value::Text(text)) => text,
            (Shape::List, list @ Value::List(_)) => return list.into_names()?.map(join).transpose(),
            (_, value) => return Err(mismatch(&value, shape)),
        }))
    }
}

fn is_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn mismatch(value: &Value, shape: Shape) -> String {
    format!("cannot unmarshal {} into a value of type {}", value.type_name(), shape.name())
}

/// A list as the command line has it.
fn join(names: Vec<String>) -> Result<String, String> {
    match names.iter().find(|name| name.contains(',')) {
        Some(name) => Err(format!("a comma in {name:?}")),
        None => Ok(names.join(",")),
    }
}

/// Reads any value and gives it to the function, whose error is then one at this place of the text.
struct Then<F>(F);

impl<T, F: FnOnce(Value) -> Result<T, String>> Then<F> {
    fn call<E: de::Error>(self, value: Value) -> Result<T, E> {
        (self.0)(value).map_err(E::custom)
    }
}

impl<'de, T, F: FnOnce(Value) -> Result<T, String>> DeserializeSeed<'de> for Then<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, F: FnOnce(Value) -> Result<T, String>> Visitor<'de> for Then<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        self.call(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.call(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.call(Value::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
        self.call(Value::Number(value.to_string()))
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<T, E> {
        self.call(Value::Number(value.to_string()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<T, E> {
        self.call(Value::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.call(Value::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
        self.call(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Then(Ok))? {
            list.push(value);
        }
        self.call(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
        self.call(Value::Map)
    }
}

#[cfg(test)]
mod tests;
