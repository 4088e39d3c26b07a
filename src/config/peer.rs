//! How other members are called. Pure.

use super::Error;

/// What may be added to the error codes of `wolf.raft`.
const CODE_BASES: [u32; 2] = [0, 7000];

/// How other members are called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerTransport {
    /// The protocol.
    pub transport: Transport,
    /// Number added to the error codes of `wolf.raft`.
    pub code_base: u32,
    /// Whether calls of `wolf.raft` are sent compressed.
    pub gzip: bool,
}

/// A protocol between members. All are answered; one is used to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// Entries as the log stores them.
    #[default]
    Native,
    /// `wolf.raft`: entries as JSON.
    Wolf,
}

/// The flags.
#[derive(Default)]
pub struct Draft {
    pub kind: String,
    pub code_base: u32,
    pub gzip: bool,
}

impl Draft {
    /// Checks them.
    pub fn verify(&self) -> Result<PeerTransport, Error> {
        if !CODE_BASES.contains(&self.code_base) {
            return Err(Error::Invalid(format!(
                "--wolf-raft-code-base must be 0 or 7000, not {}",
                self.code_base
            )));
        }
        let transport = if self.kind == "wolf" { Transport::Wolf } else { Transport::Native };
        Ok(PeerTransport { transport, code_base: self.code_base, gzip: self.gzip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_bases_are_two() {
        let verify = |code_base| Draft { kind: "wolf".into(), code_base, gzip: true }.verify();
        assert!(verify(1).is_err());
        let expected = PeerTransport { transport: Transport::Wolf, code_base: 7000, gzip: true };
        assert_eq!(verify(7000).unwrap(), expected);
    }
}
