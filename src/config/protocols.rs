//! Which protocols are served beside etcd's, and how. Pure.

use super::Error;

/// Every protocol, by the names that `--protocols` takes.
pub const NAMES: [&str; 4] = ["etcd", "rfc", "d-engine", "oxia"];
/// Shards that Oxia's clients may be told of.
const OXIA_SHARDS_MAX: u32 = 1024;

/// What is served.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Protocols {
    /// By the names that `--protocols` takes.
    pub enabled: Vec<&'static str>,
    /// Shards that Oxia's clients are told of; the same on all members, and for ever.
    pub oxia_shards: u32,
    /// Whether errors of the RFC's protocol are statuses of gRPC rather than texts in the header.
    pub rfc_errors_as_status: bool,
}

/// The flags.
#[derive(Default)]
pub struct Draft {
    pub names: String,
    pub oxia_shards: u32,
    pub rfc_errors: String,
}

impl Draft {
    /// Checks them.
    pub fn verify(&self) -> Result<Protocols, Error> {
        let mut enabled = Vec::new();
        for word in self.names.split(',').map(str::trim) {
            let known = NAMES.iter().find(|name| **name == word).ok_or_else(|| {
                Error::Invalid(format!("--protocols: {word:?} is none of {}", NAMES.join(", ")))
            })?;
            enabled.push(*known);
        }
        if !enabled.contains(&"etcd") {
            return Err(Error::Invalid("--protocols must name etcd: tools and members need it".into()));
        }
        if !(1..=OXIA_SHARDS_MAX).contains(&self.oxia_shards) {
            return Err(Error::Invalid(format!("--oxia-shards must be 1 to {OXIA_SHARDS_MAX}")));
        }
        let rfc_errors_as_status = self.rfc_errors == "status";
        Ok(Protocols { enabled, oxia_shards: self.oxia_shards, rfc_errors_as_status })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(names: &str, oxia_shards: u32) -> Result<Protocols, Error> {
        Draft { names: names.into(), oxia_shards, rfc_errors: "header".into() }.verify()
    }

    #[test]
    fn protocols_are_known_by_name() {
        assert_eq!(verify("etcd, oxia", 1).unwrap().enabled, ["etcd", "oxia"]);
        for wrong in ["", "oxia", "etcd,", "etcd,zookeeper"] {
            assert!(verify(wrong, 1).is_err(), "{wrong:?}");
        }
        assert!(verify("etcd", 0).is_err() && verify("etcd", 1025).is_err());
    }
}
