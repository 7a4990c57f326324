//! The flags of traces.

use crate::config::ConfigError;
use crate::traces::Collector;
use clap::Args;

/// Where spans of calls go.
#[derive(Args, Clone, Debug)]
pub struct TracesArgs {
    /// Send traces to this collector of OpenTelemetry, which takes OTLP over gRPC. Default: no traces.
    #[arg(long, value_name = "http://HOST:PORT", env = "RAFTQUEUE_TRACES_ENDPOINT")]
    pub traces_endpoint: Option<String>,

    /// The part of the calls that are traced which come without a trace of their caller (header `traceparent`), 0 to 1.
    /// Those that come with one are traced if it says so.
    #[arg(long, value_name = "PART", default_value_t = 0.01, env = "RAFTQUEUE_TRACES_RATIO")]
    pub traces_ratio: f64,
}

impl TracesArgs {
    pub(super) fn collector(self) -> Result<Option<Collector>, ConfigError> {
        let ratio = self.traces_ratio;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(ConfigError(format!("--traces-ratio {ratio}: must be a part, from 0 to 1")));
        }
        let Some(endpoint) = self.traces_endpoint.filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(None);
        };
        let is_address = endpoint.strip_prefix("http://").is_some_and(|address| {
            let address = address.trim_end_matches('/');
            address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        if !is_address {
            let text =
                format!("--traces-endpoint {endpoint}: must be an address as http://HOST:PORT (without TLS)");
            return Err(ConfigError(text));
        }
        Ok(Some(Collector { endpoint, ratio }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_collector_is_refused_in_words() {
        let collector = |endpoint: &str, traces_ratio: f64| {
            let traces_endpoint = Some(endpoint.to_owned());
            TracesArgs { traces_endpoint, traces_ratio }.collector().map_err(|error| error.to_string())
        };
        let endpoint = "http://collector:4317".to_owned();
        assert_eq!(collector(&endpoint, 0.5), Ok(Some(Collector { endpoint: endpoint.clone(), ratio: 0.5 })));
        assert_eq!(collector("", 0.5), Ok(None));
        for wrong in ["collector:4317", "https://collector:4317", "http://collector", "http://:4317"] {
            assert!(collector(wrong, 0.5).unwrap_err().contains("http://HOST:PORT"), "{wrong}");
        }
        for wrong in [-0.1, 1.5, f64::NAN] {
            assert!(collector(&endpoint, wrong).unwrap_err().contains("from 0 to 1"), "{wrong}");
        }
    }
}
