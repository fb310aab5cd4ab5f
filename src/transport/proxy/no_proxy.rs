//! `NO_PROXY`: who is reached without the proxy. As curl and Go read it, where they agree.

use std::net::IpAddr;

use crate::transport::endpoint::Host;

/// Whether `list` exempts this host. Entries that make no sense exempt nobody.
pub(super) fn is_exempt(list: &str, host: &Host, port: u16) -> bool {
    list.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(entry, host, port))
}

fn matches(entry: &str, host: &Host, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    // A range, or a bare IPv6 address: its colons are not a port's.
    if let Host::Ip(ip) = host {
        if let Some((network, bits)) = entry.split_once('/') {
            return bits.parse().is_ok_and(|bits| is_within(*ip, network, bits));
        }
        if let Ok(listed) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
            return listed.to_canonical() == ip.to_canonical();
        }
    }
    let (name, listed_port) = match entry.rsplit_once(':') {
        Some((name, digits)) => match digits.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => return false,
        },
        None => (entry, None),
    };
    if listed_port.is_some_and(|listed| listed != port) {
        return false;
    }
    match host {
        Host::Ip(ip) => {
            let listed = name.trim_matches(['[', ']']).parse::<IpAddr>();
            listed.is_ok_and(|listed| listed.to_canonical() == ip.to_canonical())
        }
        Host::Name(host) => is_below(host, name),
    }
}

/// `host` is `name` or a name below it; a leading `.` or `*.` says the same.
fn is_below(host: &str, name: &str) -> bool {
    let name = name.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
    if name.is_empty() {
        return false;
    }
    let host = host.trim_end_matches('.');
    host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_within(ip: IpAddr, network: &str, bits: u32) -> bool {
    let Ok(network) = network.trim_matches(['[', ']']).parse::<IpAddr>() else { return false };
    match (ip.to_canonical(), network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) if bits <= 32 => {
            let differs = u32::from(ip) ^ u32::from(network);
            differs.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) if bits <= 128 => {
            let differs = u128::from(ip) ^ u128::from(network);
            differs.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::endpoint::Endpoint;

    #[test]
    fn the_rules() {
        let cases = [
            // (list, endpoint, exempt)
            ("", "https://a.example", false),
            (" , ,", "https://a.example", false),
            ("*", "https://a.example", true),
            ("*", "https://10.1.2.3", true),
            ("b, *", "https://a.example", true),
            ("a.example", "https://a.example", true),
            ("A.Example", "https://a.example", true),
            ("a.example.", "https://a.example", true),
            ("a.example", "https://a.example.:444", true),
            ("example", "https://a.example", true),
            (".example", "https://a.example", true),
            ("*.example", "https://a.example", true),
            (".a.example", "https://a.example", true),
            ("ample", "https://a.example", false),
            ("b.a.example", "https://a.example", false),
            ("example.a", "https://a.example", false),
            ("x y\ta.example", "https://a.example", true),
            ("a.example:443", "https://a.example", true),
            ("a.example:444", "https://a.example", false),
            ("a.example:x", "https://a.example", false),
            (".", "https://a.example", false),
            ("*.", "https://a.example", false),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("10.1.2.3:443", "https://10.1.2.3", true),
            ("10.1.2.3:80", "https://10.1.2.3", false),
            ("1.2.3", "https://10.1.2.3", false),
            ("2.3", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/16", "https://10.1.2.3", false),
            ("0.0.0.0/0", "https://10.1.2.3", true),
            ("10.1.2.3/32", "https://10.1.2.3", true),
            ("10.0.0.0/33", "https://10.1.2.3", false),
            ("10.0.0.0/x", "https://10.1.2.3", false),
            ("10.0.0.0/8", "https://a.example", false),
            ("fd00::/8", "https://[fd12::1]", true),
            ("fd00::/8", "https://10.1.2.3", false),
            ("::/0", "https://[fd12::1]", true),
            ("fd12::1", "https://[fd12::1]", true),
            ("[fd12::1]", "https://[fd12::1]", true),
            ("[fd12::1]:443", "https://[fd12::1]", true),
            ("[fd12::1]:80", "https://[fd12::1]", false),
            ("10.1.2.3", "https://[::ffff:10.1.2.3]", true),
            ("10.0.0.0/8", "https://[::ffff:10.1.2.3]", true),
        ];
        for (list, url, expected) in cases {
            let endpoint = Endpoint::parse(url).unwrap();
            let exempt = is_exempt(list, endpoint.host_ref(), endpoint.port());
            assert_eq!(exempt, expected, "{list:?} {url}");
        }
    }
}
