//! Endpoints as people type them.

use crate::failure::Failure;

/// The port of clients, where none is said.
const PORT_DEFAULT: u16 = 7420;

/// The endpoints of a list as it was typed, or of a variable: `HOST:PORT` each, every one once. Spaces around them and empty ones are
/// nothing; of an empty list nothing is left, as of none.
///
/// # Errors
/// One of them is no endpoint: wrong usage.
pub(crate) fn read(typed: &[String]) -> Result<Vec<String>, Failure> {
    let mut all: Vec<String> = Vec::new();
    for text in typed.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let endpoint = endpoint(text).map_err(|why| {
            Failure::Usage(format!(
                "`{text}` is no endpoint: {why}; right would be 127.0.0.1:7420 or queue.example:7420"
            ))
        })?;
        if !all.contains(&endpoint) {
            all.push(endpoint);
        }
    }
    Ok(all)
}

fn endpoint(text: &str) -> Result<String, String> {
    let (scheme, text) = match text.strip_prefix("https://") {
        Some(text) => ("https://", text),
        None => ("", text.strip_prefix("http://").unwrap_or(text)),
    };
    let text = text.trim_end_matches('/');
    if let Some(sign) = text.chars().find(|c| c.is_whitespace() || "/?#@,;".contains(*c)) {
        return Err(format!("it has {sign:?} in it"));
    }
    // An address of IPv6 has colons of its own, and so brackets where a port follows.
    let (host, port) = match text.rsplit_once(':') {
        _ if text.ends_with(']') => (text.to_owned(), None),
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => (format!("[{text}]"), None),
        Some((host, port)) => (host.to_owned(), Some(port)),
        None => (text.to_owned(), None),
    };
    if host.is_empty() {
        return Err("it names no host".into());
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("`{port}` is no port, which is a number from 1 to 65535"))?,
    };
    Ok(format!("{scheme}{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(list: &str) -> Result<Vec<String>, Failure> {
        read(&list.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn endpoints_are_read_as_they_are_meant() {
        for (list, meant) in [
            ("h:1", &["h:1"][..]),
            ("h", &["h:7420"]),
            (" h:1 , g ", &["h:1", "g:7420"]),
            ("http://h:1/,http://h", &["h:1", "h:7420"]),
            ("10.0.0.1:7430", &["10.0.0.1:7430"]),
            ("https://h:1/,https://g", &["https://h:1", "https://g:7420"]),
            ("::1,[::1],[::1]:5", &["[::1]:7420", "[::1]:5"]),
            ("h:1,h:1", &["h:1"]),
            ("h:1,,", &["h:1"]),
            ("", &[]),
            (" , ", &[]),
        ] {
            assert_eq!(typed(list).unwrap_or_else(|why| panic!("{list}: {why:?}")), meant, "{list}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_said_with_what_would_be() {
        for (list, why) in [
            ("h:99999", "`99999` is no port"),
            ("h:", "`` is no port"),
            ("h:0", "`0` is no port"),
            ("h:http", "`http` is no port"),
            (":7420", "no host"),
            ("a b", "' ' in it"),
            ("h:1/topic", "'/' in it"),
            ("h:1;g:2", "';' in it"),
        ] {
            let Err(Failure::Usage(text)) = typed(list) else { panic!("{list} is none") };
            assert!(text.contains(why) && text.contains("127.0.0.1:7420"), "{list}: {text}");
        }
    }
}
