//! Who may ask the console.
//!
//! A browser sends its user's requests to whatever a page names, so a page of somebody else could ask this one: by name, when it
//! has its own name resolve to this address (then `Host` is that name), or across origins (then `Origin` is another one, and a
//! request that changes something would be a form's). So every request names a host that can only be meant for this node, and a
//! change comes as JSON from a page of this very host. Whoever sends requests by hand can say all that: this is no lock, it
//! keeps browsers from being used.

use super::{Settings, header as value_of, with_headers};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// See the module's header.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    hosts: Arc<[String]>,
}

impl Guard {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { hosts: settings.hosts.iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Lets a request pass, or says why not.
    pub(super) async fn pass(&self, request: Request, next: Next) -> Response {
        // HTTP/2 says it in the address.
        let authority = request.uri().authority().map(|authority| authority.as_str());
        match self.refuses(request.method(), authority, request.headers()) {
            None => next.run(request).await,
            Some(why) => {
                tracing::debug!(%why, "a request to the console is refused");
                with_headers((StatusCode::FORBIDDEN, format!("{why}\n")).into_response())
            }
        }
    }

    fn refuses(&self, method: &Method, authority: Option<&str>, headers: &HeaderMap) -> Option<String> {
        let host = match (authority, headers.contains_key(header::HOST)) {
            (Some(authority), false) => Some(authority),
            (authority, true) => value_of(headers, &header::HOST)
                .filter(|host| authority.is_none_or(|authority| authority.eq_ignore_ascii_case(host))),
            (None, false) => None,
        };
        let Some(host) = host else {
            return Some("the request names no host, or several".into());
        };
        if !self.is_own(host) {
            return Some(format!(
                "{host:?} is not a name of this node: use its address, or start it with --console-host"
            ));
        }
        if [Method::GET, Method::HEAD].contains(method) {
            return None;
        }
        let content_type = value_of(headers, &header::CONTENT_TYPE).unwrap_or_default();
        if !content_type
            .split(';')
            .next()
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        {
            return Some("a change is sent with content-type: application/json".into());
        }
        let origin = value_of(headers, &header::ORIGIN);
        let is_same = |origin: &str| {
            let of = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
            of.is_some_and(|of| of.eq_ignore_ascii_case(host))
        };
        if !origin.is_some_and(is_same) {
            return Some(format!("a change comes from a page of {host}: the header origin says otherwise"));
        }
        None
    }

    /// An address cannot be made to resolve to another one, and `localhost` is resolved by nobody.
    fn is_own(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        let name = name.to_ascii_lowercase();
        let is_address = name.parse::<Ipv4Addr>().is_ok()
            || name
                .strip_prefix('[')
                .and_then(|name| name.strip_suffix(']'))
                .is_some_and(|name| name.parse::<Ipv6Addr>().is_ok());
        is_address || name == "localhost" || self.hosts.contains(&name)
    }
}

/// A host without its port.
fn name_of(host: &str) -> Option<&str> {
    let Some((name, port)) = host.rsplit_once(':') else { return Some(host) };
    if host.ends_with(']') {
        return Some(host);
    }
    port.bytes().all(|digit| digit.is_ascii_digit()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(named: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        headers
    }

    fn guard() -> Guard {
        Guard::new(&Settings { changes: true, hosts: vec!["Demo-0.demo".into()] })
    }

    #[test]
    fn a_host_that_somebody_else_could_name_is_refused() {
        for (host, passes) in [
            ("127.0.0.1:7422", true),
            ("10.1.2.3", true),
            ("[::1]:7422", true),
            ("[fd00::1]", true),
            ("localhost:7422", true),
            ("LOCALHOST", true),
            ("demo-0.demo:7422", true),
            ("evil.example", false),
            ("localhost.evil.example:7422", false),
            ("127.0.0.1.evil.example", false),
            ("::1", false),
            ("[::1", false),
            ("localhost:7422:1", false),
            ("localhost:a", false),
            ("", false),
        ] {
            let refused = guard().refuses(&Method::GET, None, &headers(&[("host", host)]));
            assert_eq!(refused.is_none(), passes, "{host}: {refused:?}");
            // As HTTP/2 has it.
            let refused = guard().refuses(&Method::GET, Some(host), &HeaderMap::new());
            assert_eq!(refused.is_none(), passes, "{host}: {refused:?}");
            let both = guard().refuses(&Method::GET, Some("localhost"), &headers(&[("host", host)]));
            assert_eq!(both.is_none(), host.eq_ignore_ascii_case("localhost"), "{host}: {both:?}");
        }
        assert!(guard().refuses(&Method::GET, None, &HeaderMap::new()).is_some());
        let twice = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert!(guard().refuses(&Method::GET, None, &twice).is_some());
    }

    #[test]
    fn a_change_comes_as_json_from_a_page_of_this_very_host() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        let asked = |origin: Option<&str>, kind: Option<(&'static str, &str)>| {
            let mut named = vec![("host", "127.0.0.1:7422")];
            named.extend(origin.map(|origin| ("origin", origin)));
            named.extend(kind);
            guard().refuses(&Method::POST, None, &headers(&named)).is_none()
        };
        assert!(asked(Some("http://127.0.0.1:7422"), Some(JSON)));
        assert!(asked(
            Some("https://127.0.0.1:7422"),
            Some(("content-type", "Application/JSON; charset=utf-8"))
        ));
        assert!(!asked(None, Some(JSON)), "whoever has no origin is no page of this host");
        assert!(!asked(Some("null"), Some(JSON)));
        assert!(!asked(Some("http://127.0.0.1:7421"), Some(JSON)), "another port is another origin");
        assert!(!asked(Some("http://evil.example"), Some(JSON)));
        assert!(!asked(Some("http://127.0.0.1:7422.evil.example"), Some(JSON)));
        assert!(!asked(Some("http://127.0.0.1:7422"), None));
        assert!(!asked(Some("http://127.0.0.1:7422"), Some(("content-type", "text/plain"))));
        assert!(!asked(
            Some("http://127.0.0.1:7422"),
            Some(("content-type", "application/x-www-form-urlencoded"))
        ));
    }
}
