//! Which form of an answer a scraper gets: OpenMetrics where it asks for that, else the text that every Prometheus reads.
//!
//! Prometheus says in `Accept` what it takes, as media types with weights. Of OpenMetrics there is 1.0.0 here, which is also what a
//! scraper means that names 0.0.1 or no version.

use crate::open;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, TextEncoder};

/// A form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Form {
    /// What a request with this `Accept` gets; without one, and where it takes neither: the text.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let mut best = (0.0, Self::Text);
        for (form, weight) in accept.unwrap_or_default().split(',').filter_map(taken) {
            // Of two that are as welcome the first one named is meant.
            if weight > best.0 {
                best = (weight, form);
            }
        }
        best.1
    }

    /// Its media type, as it stands in `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a registry has gathered, in this form.
    ///
    /// # Panics
    /// If a family has no name or no series: a registry gathers none of these.
    #[must_use]
    pub fn write(self, families: &[MetricFamily]) -> Vec<u8> {
        match self {
            Self::Text => {
                let mut text = Vec::new();
                TextEncoder::new().encode(families, &mut text).expect("writing to memory succeeds");
                text
            }
            Self::OpenMetrics => open::write(families).into_bytes(),
        }
    }
}

/// The form that one part of an `Accept` takes, with its weight; `None` where that is neither.
fn taken(part: &str) -> Option<(Form, f64)> {
    let mut parts = part.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut weight, mut version) = (1.0, None);
    for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => weight = value.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
            "version" => version = Some(value.trim().trim_matches('"')),
            _ => {}
        }
    }
    let form = match (kind.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Form::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", None) => Form::Text,
        _ => return None,
    };
    Some((form, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_asks_for() {
        let newest = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                      application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let debian = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (None, Form::Text),
            (Some(""), Form::Text),
            (Some("*/*"), Form::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Text),
            (Some(newest), Form::OpenMetrics),
            (Some(debian), Form::OpenMetrics),
            (Some("Application/OpenMetrics-Text; Version=\"1.0.0\""), Form::OpenMetrics),
            (Some("application/openmetrics-text"), Form::OpenMetrics),
            // A version that is not there, and forms that are not: the text.
            (Some("application/openmetrics-text;version=2.0.0"), Form::Text),
            (Some("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"), Form::Text),
            // What is less welcome, or not at all.
            (Some("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;q=0.5"), Form::Text),
            (Some("application/openmetrics-text;q=0"), Form::Text),
            (Some("application/openmetrics-text;q=7"), Form::Text),
            (Some("application/openmetrics-text;q=NaN"), Form::Text),
            (Some(";;,=,q=,\u{1F980}"), Form::Text),
        ] {
            assert_eq!(Form::accepted(accept), expected, "{accept:?}");
        }
    }
}
