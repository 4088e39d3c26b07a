//! Messages of a stream that go into one frame of the body, since each frame costs as much as a small message.

use bytes::Bytes;

/// See the module. Messages come with their prefix. One alone is not copied.
#[derive(Default)]
pub struct Gathered {
    first: Bytes,
    all: Vec<u8>,
}

impl Gathered {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    /// Whether there is nothing so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds messages that are there already.
    pub fn add(&mut self, messages: Bytes) {
        if self.is_empty() {
            self.first = messages;
        } else {
            self.further().extend_from_slice(&messages);
        }
    }

    /// Where a further message is to be appended.
    pub fn further(&mut self) -> &mut Vec<u8> {
        if self.all.is_empty() {
            self.all.reserve(4 * self.first.len()); // where there are two, there are often more
        }
        self.all.extend_from_slice(&std::mem::take(&mut self.first));
        &mut self.all
    }

    /// What was gathered.
    pub fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.into() }
    }
}
