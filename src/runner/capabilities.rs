//! What this process may do beyond its user, as the kernel's `status` file
//! tells.

/// Capability sets of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capabilities {
    effective: u64,
    bounding: u64,
}

impl Capabilities {
    const SETGID: u32 = 6;
    const SETUID: u32 = 7;
    const SETPCAP: u32 = 8;

    pub(super) fn of_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let set = |name: &str| {
            status
                .lines()
                .find_map(|line| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok())
                .unwrap_or_default()
        };
        Self {
            effective: set("CapEff:"),
            bounding: set("CapBnd:"),
        }
    }

    const fn has(self, capability: u32) -> bool {
        self.effective & (1 << capability) != 0
    }

    pub(super) const fn can_switch(self) -> bool {
        self.has(Self::SETUID) && self.has(Self::SETGID)
    }

    /// What a child can take out of its bounding set. Without the right to, the
    /// set stays as the unit file cut it, and no new privileges come through
    /// it, because the child forbids itself those.
    pub(super) const fn droppable(self) -> u64 {
        if self.has(Self::SETPCAP) {
            self.bounding
        } else {
            0
        }
    }
}
