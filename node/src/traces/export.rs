//! Spans, given to a collector of OpenTelemetry by OTLP over gRPC.
//!
//! The library makes the spans, decides which traces are exported, keeps finished spans (2,048 at most: more are dropped) and
//! sends them from a thread of its own. Nothing waits for it.

use super::{Parent, Steps};
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use std::time::{Instant, SystemTime};

/// Who takes spans, and of how many calls.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Where it serves OTLP over gRPC, as `http://HOST:PORT`.
    pub endpoint: String,
    /// The part of the traces begun here that are exported, 0 to 1. What a caller began is exported if the caller says so.
    pub ratio: f64,
}

/// Makes spans and sends them to a [`Collector`]. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Exporter {
    /// Sends what the node of this name does. The collector need not be there: what it does not take in time is dropped. To be
    /// called within a runtime.
    ///
    /// # Errors
    /// The endpoint is no such address.
    pub fn start(collector: &Collector, node: &str) -> Result<Self, String> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&collector.endpoint)
            .build()
            .map_err(|error| format!("cannot send traces to {}: {error}", collector.endpoint))?;
        let of_node = [
            KeyValue::new("service.instance.id", node.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = Resource::builder().with_service_name("raftqueue").with_attributes(of_node).build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(collector.ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("raftqueue-node");
        Ok(Self { provider, tracer })
    }

    /// A call begins; `None` if its trace is not exported.
    pub(crate) fn begin(&self, name: &str, parent: Option<Parent>) -> Option<Traced> {
        let parent = parent.map_or_else(Context::new, |parent| {
            let flags = if parent.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
            let (trace, span) = (
                TraceId::from_bytes(parent.trace_id.to_be_bytes()),
                SpanId::from_bytes(parent.span_id.to_be_bytes()),
            );
            Context::new().with_remote_span_context(SpanContext::new(
                trace,
                span,
                flags,
                true,
                TraceState::NONE,
            ))
        });
        let builder = SpanBuilder::from_name(name.to_owned()).with_kind(SpanKind::Server);
        Traced { tracer: self.tracer.clone(), context: parent }.child(builder)
    }

    /// Sends what is left, and ends. Blocks for as long as the collector takes, five seconds at most.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }
}

/// Ends a span when it is dropped, as when the caller has gone.
#[derive(Debug)]
pub(crate) struct Ending {
    traced: Traced,
    error: Option<String>,
}

impl Ending {
    /// It will have ended badly.
    pub(crate) fn fails(&mut self, why: &str) {
        self.error = Some(why.to_owned());
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.traced.end(self.error.take());
    }
}

/// A span that is exported: a call, or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    tracer: SdkTracer,
    context: Context,
}

impl Traced {
    /// The id of its trace.
    pub(crate) fn id(&self) -> u128 {
        u128::from_be_bytes(self.context.span().span_context().trace_id().to_bytes())
    }

    fn child(&self, builder: SpanBuilder) -> Option<Self> {
        let span = self.tracer.build_with_context(builder, &self.context);
        let is_sampled = span.span_context().is_sampled();
        is_sampled.then(|| Self { tracer: self.tracer.clone(), context: self.context.with_span(span) })
    }

    /// A part of it that another node does, and what is to be told to that node.
    pub(crate) fn pass_on(&self, leader: &str) -> Option<(Self, Parent)> {
        let to = KeyValue::new("raftqueue.leader", leader.to_owned());
        let builder = SpanBuilder::from_name("pass on to the leader").with_kind(SpanKind::Client);
        let passed = self.child(builder.with_attributes([to]))?;
        let span_id = u64::from_be_bytes(passed.context.span().span_context().span_id().to_bytes());
        let parent = Parent { trace_id: passed.id(), span_id, is_sampled: true };
        Some((passed, parent))
    }

    /// A batch of a stream, which is a part of it.
    pub(crate) fn batch(&self) -> Option<Self> {
        self.child(SpanBuilder::from_name("batch"))
    }

    /// It has ended.
    pub(crate) fn end(&self, error: Option<String>) {
        let span = self.context.span();
        if let Some(error) = error {
            span.set_status(Status::error(error));
        }
        span.end();
    }

    /// It ends when what is returned is dropped.
    pub(crate) fn until_dropped(self) -> Ending {
        Ending { traced: self, error: None }
    }

    /// Tells of its steps in the driver, each a part of it.
    pub(crate) fn tell(&self, steps: &Steps) {
        let Some(taken) = steps.taken.get() else { return };
        let answered = steps.answered.get().copied().unwrap_or_else(Instant::now);
        let proposed = steps.proposed.get();
        self.part("wait for an entry", *taken, proposed.map_or(answered, |(at, _)| *at), None);
        if let Some((at, index)) = proposed {
            let index = KeyValue::new("raftqueue.index", i64::try_from(index.0).unwrap_or(i64::MAX));
            match steps.committed.get() {
                Some(committed) => {
                    self.part("replicate", *at, *committed, Some(index));
                    if *committed < answered {
                        self.part("apply", *committed, answered, None);
                    }
                }
                None => self.part("replicate (not known to be done)", *at, answered, Some(index)),
            }
        }
    }

    fn part(&self, name: &'static str, from: Instant, to: Instant, attribute: Option<KeyValue>) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let at = |instant: Instant| wall - now.saturating_duration_since(instant);
        let builder = SpanBuilder::from_name(name).with_start_time(at(from)).with_attributes(attribute);
        self.tracer.build_with_context(builder, &self.context).end_with_timestamp(at(to));
    }
}
