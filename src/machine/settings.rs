//! Settings of the kernel that decide whether a bind works.

/// The lowest port that may be bound without `CAP_NET_BIND_SERVICE`, where the kernel tells; see ip(7).
pub fn unprivileged_port_start() -> Option<u16> {
    sysctl("net.ipv4.ip_unprivileged_port_start")?.parse().ok()
}

/// Whether this process may bind low ports; see capabilities(7).
pub fn may_bind_low_ports() -> bool {
    const CAP_NET_BIND_SERVICE: u32 = 10;
    procfs::process::Process::myself()
        .and_then(|process| process.status())
        .is_ok_and(|status| status.capeff & (1 << CAP_NET_BIND_SERVICE) != 0)
}

/// The value of a kernel setting, as sysctl(8) shows it.
fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_settings() {
        assert!(unprivileged_port_start().is_some());
        assert_eq!(sysctl("net.ipv4.there_is_no_such_setting"), None);
    }
}
