use url::Url;

use super::*;

fn grant(text: &str) -> NetworkGrant {
    NetworkGrant::parse(text).unwrap()
}

fn allows(text: &str, method: &str, url: &str) -> bool {
    Origin::of(&Url::parse(url).unwrap()).is_ok_and(|origin| grant(text).allows(&origin, method))
}

#[test]
fn a_name_is_one_origin_and_its_methods() {
    assert!(allows("https://api.example.com", "GET", "https://API.example.com.:443/x?y"));
    assert!(allows("https://api.example.com GET POST", "POST", "https://api.example.com/"));
    assert!(allows("https://xn--bcher-kva.example", "GET", "https://bücher.example/"));
    for (method, url) in [
        ("POST", "https://api.example.com/"),
        ("GET", "http://api.example.com/"),
        ("GET", "https://api.example.com:8443/"),
        ("GET", "https://example.com/"),
        ("GET", "https://a.api.example.com/"),
        ("GET", "https://api.example.com.evil.test/"),
        ("GET", "https://evil.test/api.example.com"),
    ] {
        assert!(!allows("https://api.example.com", method, url), "{method} {url}");
    }
}

#[test]
fn a_suffix_is_every_name_below_it_and_not_the_name_itself() {
    let below = |url: &str| allows("https://*.example.com", "GET", url);
    assert!(below("https://a.example.com/") && below("https://a.b.EXAMPLE.com./"));
    assert!(!below("https://example.com/") && !below("https://notexample.com/"));
    assert!(!below("https://example.com.evil.test/") && !below("http://a.example.com/"));
    // A name that leads to a machine's credentials is not one of many.
    assert!(!allows("http://*.google.internal", "GET", "http://metadata.google.internal/"));
    assert!(allows("http://metadata.google.internal", "GET", "http://metadata.google.internal/"));
}

#[test]
fn ports_are_one_a_range_or_all() {
    assert!(allows("http://localhost:*", "GET", "http://localhost:1/"));
    assert!(allows("http://localhost:*", "GET", "http://localhost/"));
    let range = |port: u16| allows("http://h.test:8000-8080", "GET", &format!("http://h.test:{port}/"));
    assert!(range(8000) && range(8080) && !range(7999) && !range(8081));
}

#[test]
fn addresses_and_ranges_match_addresses_whatever_they_wear() {
    for url in ["http://127.0.0.1:1/", "http://2130706433:1/", "http://0x7f.1:1/", "http://0177.1:1/"] {
        assert!(allows("http://127.0.0.1:1", "GET", url), "{url}");
        assert!(allows("http://127.0.0.0/8:1", "GET", url), "{url}");
        assert!(!allows("http://10.0.0.0/8:*", "GET", url), "{url}");
    }
    // The same machine perhaps, but not what was granted.
    for url in [
        "http://[::ffff:127.0.0.1]:1/",
        "http://[64:ff9b::7f00:1]:1/",
        "http://[2002:7f00:1::]:1/",
        "http://[2001:0:7f00:1::]:1/",
        "http://localhost:1/",
        "http://127.0.0.1.nip.io:1/",
    ] {
        assert!(!allows("http://127.0.0.0/8:1", "GET", url), "{url}");
    }
    assert!(allows("http://[fd12::/32]:8080", "GET", "http://[fd12:0:1::5]:8080/"));
    assert!(Url::parse("http://[fe80::1%25eth0]/").is_err());
}

#[test]
fn what_is_not_a_grant_is_refused_with_examples() {
    for (text, reason) in [
        ("", "it is empty"),
        ("*", "has to start with"),
        ("example.com", "has to start with"),
        ("ftp://a.b", "has to start with"),
        ("HTTPS://a.b", "has to start with"),
        ("https://", "is not a host"),
        ("https://*", "only at the beginning"),
        ("https://a.*.b", "only at the beginning"),
        ("https://*.10.0.0.1", "a name follows"),
        ("https://a.b/c", "a grant has no path"),
        ("https://a.b/", "a grant has no path"),
        ("https://a.b?c", "is not a host"),
        ("https://u@a.b", "is not a host"),
        ("https://a..b", "is not a host"),
        ("https://a.b:0", "is not a port"),
        ("https://a.b:+80", "is not a port"),
        ("https://a.b:", "is not a port"),
        ("https://a.b:99999", "is not a port"),
        ("https://a.b:90-80", "run backwards"),
        ("https://::1", "is not"),
        ("http://10.1.2.3/16", "write `10.1.0.0/16`"),
        ("http://0.0.0.0/0", "more than a /8"),
        ("http://[::/0]", "more than a /8"),
        ("https://a.b get", "words in capitals"),
        ("https://a.b CONNECT", "cannot be granted"),
    ] {
        let error = NetworkGrant::parse(text).unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("`https://*.example.com GET POST`"),
            "{text}: {error}"
        );
    }
}

#[test]
fn names_that_strangers_are_given_are_not_granted_together() {
    for suffix in [
        "com",
        "co.uk",
        "corp",
        "localhost",
        "hf.space",
        "static.hf.space",
        "github.io",
        "s3.amazonaws.com",
        "amazonaws.com",
        "eu-west-1.amazonaws.com",
        "blob.core.windows.net",
        "storage.googleapis.com",
        "googleapis.com",
        "r2.dev",
        "ngrok-free.app",
        "endpoints.huggingface.cloud",
        "us-east-1.aws.endpoints.huggingface.cloud",
        "gradio.live",
        "oss-cn-hangzhou.aliyuncs.com",
        "obs.myhuaweicloud.com",
        "modal.run",
        "proxy.runpod.net",
        "lhr.life",
        "loca.lt",
        "objectstorage.us-ashburn-1.oraclecloud.com",
        "s3.idrivee2.com",
        "trycloudflare.com",
        "nip.io",
    ] {
        let error = NetworkGrant::parse(&format!("https://*.{suffix}")).unwrap_err().to_string();
        assert!(error.contains("anyone can get a name"), "{suffix}: {error}");
        assert!(NetworkGrant::parse(&format!("https://mine.{suffix}")).is_ok(), "{suffix}");
    }
    for suffix in ["huggingface.co", "hf.co", "ml.corp.example", "team.github.io", "ml.corp"] {
        assert!(NetworkGrant::parse(&format!("https://*.{suffix}")).is_ok(), "{suffix}");
    }
}

#[test]
fn both_sides_give_what_is_common_to_them() {
    let both = |a: &str, b: &str| {
        let (a, b) = (grant(a), grant(b));
        let (there, back) = (a.intersection(&b), b.intersection(&a));
        assert_eq!(there.is_some(), back.is_some(), "{a} {b}");
        there.map(|both| both.to_string())
    };
    for (a, b, common) in [
        ("https://*.a.test GET POST", "https://b.a.test POST", "https://b.a.test POST"),
        ("https://*.a.test", "https://*.b.a.test", "https://*.b.a.test GET HEAD"),
        ("http://10.0.0.0/8:*", "http://10.1.2.3:80", "http://10.1.2.3 GET HEAD"),
        ("http://10.0.0.0/8:1-90", "http://10.1.0.0/16:80-99", "http://10.1.0.0/16:80-90 GET HEAD"),
        ("http://localhost:*", "http://localhost:8000", "http://localhost:8000 GET HEAD"),
    ] {
        assert_eq!(both(a, b).as_deref(), Some(common));
    }
    for (a, b) in [
        ("https://*.a.test", "https://a.test"),
        ("https://*.a.test", "https://*.ba.test"),
        ("https://a.test", "http://a.test"),
        ("https://a.test GET", "https://a.test POST"),
        ("http://10.0.0.0/8", "http://11.0.0.1"),
        ("http://a.test:1-2", "http://a.test:3"),
        ("http://localhost", "http://127.0.0.1"),
    ] {
        assert_eq!(both(a, b), None);
    }
}

#[test]
fn a_host_is_written_as_it_is_reached() {
    for (text, told) in [
        ("https://\u{430}pple.com GET", "`xn--pple-43d.com`"),
        ("https://*.b\u{fc}cher.example GET", "`xn--bcher-kva.example`"),
        ("https://exam\u{200b}ple.com", "xn--"),
    ] {
        let error = NetworkGrant::parse(text).unwrap_err().to_string();
        assert!(error.contains("written as requests have it"), "{error}");
        assert!(error.contains(told) || text.contains('\u{200b}'), "{error}");
    }
}
