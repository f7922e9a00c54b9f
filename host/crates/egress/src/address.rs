//! Which addresses are public, through every disguise an address can wear.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether a plugin may connect to an address that no grant of it names.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| is_public_v6(v6), is_public_v4),
    }
}

/// Whether a cloud's machines get their own credentials or settings there.
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_metadata_v4(v4),
        IpAddr::V6(v6) => is_metadata_v6(v6) || meant_by(v6).into_iter().any(is_metadata_v4),
    }
}

/// Whether one of these ranges has an address, or one that it stands for.
pub(crate) fn is_among(nets: &[IpNet], address: IpAddr) -> bool {
    let has = |address: IpAddr| nets.iter().any(|net| net.contains(&address));
    let meant = match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(v6) => meant_by(v6),
    };
    has(address) || meant.into_iter().any(|v4| has(v4.into()))
}

/// Link-local: Amazon, Google, Azure, Tencent and most others. Then Alibaba, Oracle, and Azure's wire server.
fn is_metadata_v4(address: Ipv4Addr) -> bool {
    address.is_link_local()
        || matches!(address.octets(), [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16])
}

/// Amazon (with containers and pods), Google, Oracle, Scaleway, and whoever answers on this link alone.
fn is_metadata_v6(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
        || matches!(
            address.segments(),
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, _]
                | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
                | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
                | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
        )
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // shared address space, where cloud metadata also lives
        || (a == 100 && (64..128).contains(&b))
        // protocol assignments and benchmarking
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || is_metadata_v4(address))
}

/// Only the global unicast block, less the parts of it that lead elsewhere.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    let special = a == 0x2001 && b < 0x200;
    (0x2000..0x4000).contains(&a) && !documentation && !special
}

/// The IPv4 address that an IPv6 address stands for: mapped, compatible, NAT64, 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// The IPv4 addresses that an IPv6 address may lead to. Where one stands in an address of a network's own
/// NAT64 (`64:ff9b:1::/48`) depends on the prefix that the network chose: each place of RFC 6052 counts.
fn meant_by(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = address.octets();
    match address.segments() {
        [0x64, 0xff9b, 1, ..] => vec![
            Ipv4Addr::new(o[6], o[7], o[9], o[10]),
            Ipv4Addr::new(o[7], o[9], o[10], o[11]),
            Ipv4Addr::new(o[9], o[10], o[11], o[12]),
            Ipv4Addr::new(o[12], o[13], o[14], o[15]),
        ],
        _ => embedded_v4(address).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_metadata, is_public};

    #[test]
    fn metadata_services_of_clouds_in_every_place() {
        for address in [
            "169.254.169.254",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00:0",
        ] {
            assert!(is_metadata(address.parse().unwrap()), "{address}");
        }
        for address in
            ["1.1.1.1", "10.0.0.1", "fd00::1", "fd00:42::43", "64:ff9b:1::101:101", "64:ff9b::101:101"]
        {
            assert!(!is_metadata(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn disguises_of_addresses_that_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            // A public one for who reads the last bits, a private one for who reads the first.
            "64:ff9b:1:a00:0:100:808:808",
            "2002:7f00:1::",
            // Teredo
            "2001:0:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "168.63.129.16",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
