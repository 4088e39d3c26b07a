//! A connection to another member, and who is at its two ends. Used by the transports.

use crate::types::MemberId;
use tonic::transport::Channel;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    channel: Channel,
    cluster: u64,
    me: MemberId,
    target: MemberId,
}

impl Link {
    /// A connection from `me` to `target`, both in `cluster`.
    pub fn new(channel: Channel, cluster: u64, me: MemberId, target: MemberId) -> Link {
        Link { channel, cluster, me, target }
    }

    /// The channel; it connects when it is used, and again when the connection is lost.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The member at the other end.
    pub fn target(&self) -> MemberId {
        self.target
    }

    /// The cluster of both.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// This member.
    pub fn me(&self) -> MemberId {
        self.me
    }
}
