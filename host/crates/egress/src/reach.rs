use std::net::IpAddr;

use ipnet::IpNet;

use crate::Origin;
use crate::address::{is_metadata, is_public};

/// Which addresses a request may connect to. Also names the pool of connections that were checked by it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Reach {
    /// All: the user named the origin.
    Any,
    /// All but metadata services: the user said that a mirror may have any.
    Private,
    /// Public ones if a name leads to them, and what grants name as addresses.
    Granted { public: bool, named: Vec<IpNet> },
}

impl Reach {
    /// Public addresses if the origin is a name, and these.
    pub(crate) fn to(origin: &Origin, named: Vec<IpNet>) -> Self {
        Self::Granted { public: origin.addresses().is_empty(), named }
    }

    /// Whether an address may be connected to. A cloud's metadata service has to be named itself.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        let (public, named) = match self {
            Self::Any => return true,
            Self::Private => return !is_metadata(address),
            Self::Granted { public, named } => (public, named),
        };
        let itself = IpNet::from(address);
        if is_metadata(address) {
            return named.contains(&itself);
        }
        (*public && is_public(address)) || named.iter().any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(public: bool, named: &[&str], address: &str) -> bool {
        let named = named.iter().map(|net| net.parse().unwrap()).collect();
        Reach::Granted { public, named }.permits(address.parse().unwrap())
    }

    #[test]
    fn a_name_leads_to_public_addresses_and_to_those_that_are_granted_themselves() {
        assert!(permits(true, &[], "1.1.1.1") && !permits(false, &[], "1.1.1.1"));
        assert!(!permits(true, &[], "10.1.2.3") && permits(true, &["10.1.0.0/16"], "10.1.2.3"));
        assert!(!permits(true, &["10.1.0.0/16"], "10.2.0.1"));
        assert!(permits(false, &["127.0.0.1/32"], "127.0.0.1"));
        assert!(!permits(true, &["127.0.0.1/32"], "127.0.0.2"));
        // An address in another dress is another address.
        assert!(!permits(true, &["10.0.0.0/8"], "::ffff:10.0.0.1"));
    }

    #[test]
    fn metadata_services_are_reached_by_their_own_name_only() {
        for address in ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16"] {
            let wide = ["169.254.0.0/16", "100.64.0.0/10", "168.0.0.0/8"];
            assert!(!permits(true, &wide, address), "{address}");
            assert!(permits(false, &[&format!("{address}/32")], address), "{address}");
        }
        for address in [
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fe80::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1:a9fe:a9:fe00::",
        ] {
            assert!(!permits(true, &["fc00::/7", "::/0"], address), "{address}");
        }
    }
}
