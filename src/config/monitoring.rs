//! What can be seen of the server from outside, besides its log: detail of metrics, and traces. Pure.

use super::Error;

/// Highest rate: every trace.
const PER_MILLION: i64 = 1_000_000;

/// What can be seen from outside.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Monitoring {
    /// Whether metrics show how long each gRPC call took.
    pub extensive: bool,
    /// Where traces go; `None`: there are none.
    pub tracing: Option<Tracing>,
}

/// Where traces go, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracing {
    /// Host and port of the collector, which speaks OTLP over gRPC without TLS.
    pub address: String,
    /// Name of the service.
    pub service: String,
    /// Id of this member; empty: none.
    pub instance: String,
    /// Traces kept of a million that begin here. One that a client began is kept if the client says so.
    pub per_million: u32,
}

/// The flags.
#[derive(Default)]
pub struct Draft {
    pub metrics: String,
    pub tracing: bool,
    pub address: String,
    pub service: String,
    pub instance: String,
    pub rate: i64,
}

impl Draft {
    /// Checks them. Any word but `extensive` is like `basic`, as in etcd.
    pub fn verify(&self) -> Result<Monitoring, Error> {
        let invalid = |why: &str| {
            Error::Invalid(format!(
                "distributed tracing configurition is not valid: (tracing sampling rate must be {why})"
            ))
        };
        let tracing = match self.rate {
            _ if !self.tracing => None,
            ..0 => return Err(invalid("positive")),
            0..=PER_MILLION => Some(Tracing {
                address: self.address.clone(),
                service: self.service.clone(),
                instance: self.instance.clone(),
                per_million: self.rate as u32,
            }),
            _ => return Err(invalid("less than 1000000")),
        };
        Ok(Monitoring { extensive: self.metrics == "extensive", tracing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_matters_only_with_tracing() {
        let draft = |tracing, rate| Draft { tracing, rate, ..Draft::default() };
        assert_eq!(draft(false, -1).verify().unwrap().tracing, None);
        assert_eq!(draft(true, 7).verify().unwrap().tracing.unwrap().per_million, 7);
        assert!(draft(true, -1).verify().unwrap_err().to_string().contains("must be positive"));
        assert!(draft(true, PER_MILLION + 1).verify().is_err());
    }
}
