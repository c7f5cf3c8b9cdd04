//! Who is at the other end of a connection: the kernel's word on a unix socket,
//! an address on TCP.

use std::net::IpAddr;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this host, as the kernel knows it.
    Unix {
        /// Its effective user at the time it connected.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// It; absent where it is outside of what this process can see.
        pid: Option<u32>,
    },
    /// An address.
    Tcp(IpAddr),
}

/// What connections are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    User(u32),
    /// An IPv4 address, or the /64 network that one IPv6 client has to itself.
    Address(u64),
}

impl Peer {
    /// Its address, where it is somewhere else.
    pub(super) fn address(self) -> Option<String> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp(address) => Some(address.to_string()),
        }
    }

    pub(super) fn key(self) -> PeerKey {
        match self {
            Self::Unix { uid, .. } => PeerKey::User(uid),
            Self::Tcp(address) => match address.to_canonical() {
                IpAddr::V4(v4) => PeerKey::Address(u64::from(v4.to_bits())),
                IpAddr::V6(v6) => PeerKey::Address((v6.to_bits() >> 64) as u64),
            },
        }
    }
}
