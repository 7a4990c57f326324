//! `raftqueue-operator`: keeps RaftQueues as their specs ask.

use clap::Parser;
use raftqueue_operator::cluster::Clusters;
use raftqueue_operator::config::Config;
use raftqueue_operator::controller::Loop;
use raftqueue_operator::crd::RaftQueue;
use raftqueue_operator::health::{self, Health};
use raftqueue_operator::lease::Holder;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Pause between two attempts to reach the API server at the start.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How long connecting to the API server may take. With the library's 30 s an outage would last that much longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let config = Config::parse();
    start_logging(&config);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(&config.log);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.logs_json() {
        builder.json().init();
    } else {
        builder.init();
    }
}

async fn run(config: Config) -> Result<(), String> {
    let (stop, stopping) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        stop.send_replace(true);
    });
    let listener = health::listen(config.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; --listen names another place", config.listen)
    })?;
    let health = Arc::new(Health::default());
    // It serves to the end: this process is alive until the lease is given back.
    let server = tokio::spawn(health::serve(listener, Arc::clone(&health)));
    let result = tokio::select! {
        result = lead(&config, &health, stopping.clone()) => result,
        ended = server => Err(format!("the server of /metrics ended: {ended:?}")),
    };
    // A stop that was asked for is not a failure, whatever the loop says of it.
    if *stopping.borrow() { Ok(()) } else { result }
}

/// Done once this process is asked to stop.
async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process.
    let _ = stopping.wait_for(|stopped| *stopped).await;
}

/// Waits for the lease, and acts while it is held.
async fn lead(config: &Config, health: &Arc<Health>, stopping: watch::Receiver<bool>) -> Result<(), String> {
    let identity = config.identity();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), identity, node_image = config.node_image, "starting");
    let api_server = api_server().await?;
    tokio::select! {
        reached = reach(&api_server, config.watch_namespace.as_deref()) => reached?,
        () = stopped(stopping.clone()) => return Ok(()),
    }
    health.ready.store(true, Ordering::Relaxed);
    // An operator whose lease is lost begins anew at once. If it ended instead, Kubernetes would make it wait longer
    // with each end, just when the API server is back.
    loop {
        let term = lead_once(config, health, stopping.clone(), identity.clone(), &api_server);
        let Err(why) = Box::pin(term).await? else { return Ok(()) };
        tracing::warn!("{why}; acts again once it holds the lease again");
    }
}

/// How to reach the API server.
async fn api_server() -> Result<kube::Config, String> {
    let mut api_server = kube::Config::infer().await.map_err(|error| {
        format!("no API server is known ({error}): run in a pod, or name one by KUBECONFIG")
    })?;
    api_server.connect_timeout = Some(CONNECT_TIMEOUT);
    // The callers know how soon to try again what fails. The library's own pauses double within a call, and grow to
    // minutes.
    api_server.default_retry = false;
    Ok(api_server)
}

/// A client with its own connections: those of another client may hang on an API server that is gone.
fn client(api_server: &kube::Config) -> Result<kube::Client, String> {
    kube::Client::try_from(api_server.clone()).map_err(|error| format!("cannot make a client: {error}"))
}

/// Waits for the lease, and acts while it is held: until this process is asked to stop, or until the lease cannot be
/// renewed. The inner error then says why.
async fn lead_once(
    config: &Config,
    health: &Arc<Health>,
    stopping: watch::Receiver<bool>,
    identity: String,
    api_server: &kube::Config,
) -> Result<Result<(), String>, String> {
    let client = client(api_server)?;
    let mut holder = Holder::new(client.clone(), &config.namespace, identity.clone());
    tokio::select! {
        () = holder.acquire() => {}
        () = stopped(stopping.clone()) => return Ok(Ok(())),
    }
    tracing::info!("holds the lease");
    health.metrics.set_leads(true);
    let clusters = Clusters::new(
        client.clone(),
        health.metrics.clusters.clone(),
        config.node_image.clone(),
        config.namespace.clone(),
        identity,
    );
    let clusters = Arc::new(Loop::new(clusters, health.metrics.passes.clone()));
    let ended = {
        let namespace = config.watch_namespace.as_deref();
        let passes = clusters.run(client, namespace, config.concurrency, Box::pin(stopped(stopping)));
        tokio::pin!(passes);
        tokio::select! {
            () = &mut passes => Ok(()),
            // Passes under way are dropped as they are: another operator may act from now on.
            why = holder.keep() => Err(why),
        }
    };
    health.metrics.set_leads(false);
    if ended.is_ok() {
        holder.release().await;
    }
    Ok(ended)
}

/// Returns once RaftQueues can be listed.
async fn reach(api_server: &kube::Config, namespace: Option<&str>) -> Result<(), String> {
    let client = client(api_server)?;
    let api: kube::Api<kube::core::PartialObjectMeta<RaftQueue>> = match namespace {
        Some(namespace) => kube::Api::namespaced(client, namespace),
        None => kube::Api::all(client),
    };
    let one = kube::api::ListParams::default().limit(1);
    while let Err(error) = api.list(&one).await {
        tracing::warn!(%error, "cannot list RaftQueues; trying again. Is the custom resource installed (deploy/crd.yaml)?");
        tokio::time::sleep(TRY_EVERY).await;
    }
    Ok(())
}
