//! Where the messages begin in a body of gRPC, however its bytes arrive.

use bytes::Buf;

/// Compression flag and length in front of each message.
const PREFIX: usize = 5;

/// Position in a body, between two pieces of it.
#[derive(Default)]
pub struct Framing {
    prefix: [u8; PREFIX],
    prefix_len: usize,
    /// Bytes of the present message still to come.
    rest: usize,
}

impl Framing {
    /// Follows the framing through `data`; `begins` learns the length of each message as soon as it is known.
    pub fn follow<E>(
        &mut self,
        mut data: &[u8],
        mut begins: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            if self.rest > 0 {
                let step = self.rest.min(data.len());
                self.rest -= step;
                data.advance(step);
                continue;
            }
            let step = (PREFIX - self.prefix_len).min(data.len());
            self.prefix[self.prefix_len..self.prefix_len + step].copy_from_slice(&data[..step]);
            self.prefix_len += step;
            data.advance(step);
            if self.prefix_len == PREFIX {
                self.prefix_len = 0;
                let [_, a, b, c, d] = self.prefix;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                begins(self.rest)?;
            }
        }
        Ok(())
    }
}
