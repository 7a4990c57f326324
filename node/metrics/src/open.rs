//! OpenMetrics 1.0.0, from what a registry has gathered. It is the text of Prometheus but for this:
//!
//! - A counter is named without `_total` where it is described, and with it where it has a value. So every counter ends in `_total`
//!   in the registry as well, and has one name whichever form is asked for.
//! - Units are told: a name that ends in one of [`UNITS`].
//! - A bound of a histogram has a decimal point, `le="1.0"`, as Prometheus 3 writes it whatever it reads.
//! - The last line is `# EOF`: what was cut off is known to be.
//!
//! No times of creation are told: the library has none, and Prometheus has no use for them by default.
//! Native histograms are no part of this form, nor of the other one: Prometheus reads them from protobuf alone, and the library has
//! none.

use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use std::fmt::{self, Write as _};

/// Units that names end in.
const UNITS: [&str; 2] = ["seconds", "bytes"];

pub(super) fn write(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family).expect("a string takes any text");
    }
    text.push_str("# EOF\n");
    text
}

fn write_family(text: &mut String, family: &MetricFamily) -> fmt::Result {
    let kind = family.get_field_type();
    let name = match kind {
        MetricType::COUNTER => family.name().strip_suffix("_total").unwrap_or(family.name()),
        _ => family.name(),
    };
    let word = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        // Nobody here has any.
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    writeln!(text, "# TYPE {name} {word}")?;
    if let Some(unit) = UNITS.iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            MetricType::COUNTER => {
                sample(text, name, "_total", labels, None, metric.get_counter().get_value())?;
            }
            MetricType::GAUGE => sample(text, name, "", labels, None, metric.get_gauge().get_value())?,
            _ => {
                let histogram = metric.get_histogram();
                for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite())
                {
                    let (bound, count) = (Some(bucket.upper_bound()), bucket.cumulative_count());
                    sample(text, name, "_bucket", labels, bound, as_float(count))?;
                }
                let count = as_float(histogram.get_sample_count());
                sample(text, name, "_bucket", labels, Some(f64::INFINITY), count)?;
                sample(text, name, "_sum", labels, None, histogram.get_sample_sum())?;
                sample(text, name, "_count", labels, None, count)?;
            }
        }
    }
    Ok(())
}

/// One line: a series and its value. `bound` is that of a bucket.
fn sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: f64,
) -> fmt::Result {
    write!(text, "{name}{suffix}")?;
    let mut separator = '{';
    for label in labels {
        write!(text, "{separator}{}=\"{}\"", label.name(), Escaped(label.value()))?;
        separator = ',';
    }
    if let Some(bound) = bound {
        write!(text, "{separator}le=\"{}\"", Bound(bound))?;
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    writeln!(text, " {}", Number(value))
}

/// A number as both forms write it: infinity by the name that Prometheus has for it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number}"),
        }
    }
}

/// A bound as Prometheus 3 writes it.
struct Bound(f64);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole.is_finite() && whole.fract() == 0.0 => write!(f, "{whole:.1}"),
            other => Number(other).fmt(f),
        }
    }
}

/// A text in which line ends, quotes and backslashes are escaped. Those of a topic's name may be any.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' => f.write_str("\\\"")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Counts have their exact value up to 2^53, as in the other form.
#[expect(clippy::cast_precision_loss, reason = "every reader of either form takes them for such numbers")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Form;
    use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

    fn registry() -> Registry {
        let registry = Registry::new();
        let calls =
            IntCounterVec::new(Opts::new("calls_total", "Calls.\nBy \"topic\"."), &["topic"]).unwrap();
        registry.register(Box::new(calls.clone())).unwrap();
        calls.with_label_values(&["a\\b\n\"c\""]).inc_by(3);
        let written = IntGauge::new("written_bytes", "Bytes.").unwrap();
        registry.register(Box::new(written.clone())).unwrap();
        written.set(7);
        let far = Gauge::new("far", "Far.").unwrap();
        registry.register(Box::new(far.clone())).unwrap();
        far.set(f64::INFINITY);
        let buckets = vec![0.000_05, 1.0, 16_384.0];
        let took = HistogramOpts::new("took_seconds", "Time.").buckets(buckets);
        let took = Histogram::with_opts(took).unwrap();
        registry.register(Box::new(took.clone())).unwrap();
        took.observe(0.5);
        registry
    }

    #[test]
    fn it_is_written_as_its_page_says() {
        let expected = r##"# TYPE calls counter
# HELP calls Calls.\nBy \"topic\".
calls_total{topic="a\\b\n\"c\""} 3
# TYPE far gauge
# HELP far Far.
far +Inf
# TYPE took_seconds histogram
# UNIT took_seconds seconds
# HELP took_seconds Time.
took_seconds_bucket{le="0.00005"} 0
took_seconds_bucket{le="1.0"} 1
took_seconds_bucket{le="16384.0"} 1
took_seconds_bucket{le="+Inf"} 1
took_seconds_sum 0.5
took_seconds_count 1
# TYPE written_bytes gauge
# UNIT written_bytes bytes
# HELP written_bytes Bytes.
written_bytes 7
# EOF
"##;
        assert_eq!(write(&registry().gather()), expected);
    }

    /// Whoever asks for one form and then for the other has the same series, but for the spelling of bounds.
    #[test]
    fn both_forms_have_the_same_series() {
        let families = registry().gather();
        let series = |form: Form| {
            let text = String::from_utf8(form.write(&families)).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(|line| line.replace(".0\"}", "\"}").replace(" +Inf", " inf")).collect::<Vec<_>>()
        };
        assert_eq!(series(Form::OpenMetrics), series(Form::Text));
        assert_eq!(series(Form::Text).len(), 9);
    }
}
