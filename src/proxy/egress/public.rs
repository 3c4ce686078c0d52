//! Which addresses are out in the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not, or not for everybody (the IANA registry of special-purpose addresses), by their
/// first address and the length of their prefix.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, what is reserved, broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
    // The host of a virtual machine in Azure, which tells it its secrets.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// The same of what is within `2000::/3`, outside of which nothing of IPv6 is public.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    // Teredo and other protocols, which lead elsewhere.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4: holds an IPv4 address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What translated addresses begin with.
const TRANSLATED: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// Whether an address belongs to a host of the internet: not to this machine, not to a network that only those in
/// it reach, and to no service of a cloud for its own machines.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => within(address).map_or_else(|| is_public_v6(address), is_public_v4),
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = u128::from(address);
    let inside = |(first, length): &(Ipv6Addr, u32)| (bits ^ u128::from(*first)) >> (128 - length) == 0;
    bits >> 125 == 1 && !NOT_PUBLIC_V6.iter().any(inside)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    let inside = |(first, length): &(Ipv4Addr, u32)| (bits ^ u32::from(*first)) >> (32 - length) == 0;
    !NOT_PUBLIC_V4.iter().any(inside)
}

/// The IPv4 address that is reached by one of IPv6: mapped (RFC 4291 §2.5.5.2), or translated (RFC 6052 §2.1).
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = u128::from(address);
    let translated = bits >> 32 == u128::from(TRANSLATED) >> 32;
    #[expect(clippy::cast_possible_truncation, reason = "the last 32 bits are what is looked for")]
    let last = Ipv4Addr::from(bits as u32);
    address.to_ipv4_mapped().or(translated.then_some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internet_is_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
