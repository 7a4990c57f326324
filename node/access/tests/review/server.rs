//! An API server that knows nothing but TokenReviews, over TLS with a CA of its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use raftqueue_access::ApiServer;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What it says to every question.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The token is that of the ServiceAccount that it names, and made for whom was asked.
    Yes,
    /// It is not, and why.
    No(&'static str),
    /// This status and this body.
    Raw(u16, String),
    /// The connection ends.
    Cut,
}

/// Path, header `authorization` and body of a question.
type Asked = (String, String, Value);

/// What the connections share.
struct Shared {
    answer: Mutex<Answer>,
    asked: watch::Sender<Vec<Asked>>,
    is_held: watch::Sender<bool>,
}

pub(crate) struct Server {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
    port: u16,
    task: JoinHandle<()>,
}

/// A token as the API server makes them; nobody here looks at the signature.
pub(crate) fn token(subject: &str, audiences: &[&str], expires_s: u64) -> String {
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(json!({"alg": "RS256", "kid": "a"}));
    let claims = json!({"iss": "https://kubernetes.default.svc.cluster.local", "aud": audiences, "sub": subject, "exp": expires_s});
    format!("{header}.{}.AAAA", encode(claims))
}

impl Server {
    pub(crate) async fn start(answer: Answer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let acceptor = TlsAcceptor::from(Arc::new(certify(folder.path())));
        std::fs::write(
            folder.path().join("token"),
            token("system:serviceaccount:queues:demo", &[], 0) + "\n",
        )
        .expect("it can be written");
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            asked: watch::Sender::new(Vec::new()),
            is_held: watch::Sender::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { shared, folder, port, task }
    }

    pub(crate) fn api(&self) -> ApiServer {
        let file = |name: &str| self.folder.path().join(name);
        ApiServer {
            host: "127.0.0.1".into(),
            port: self.port,
            token_file: file("token"),
            ca_file: file("ca.crt"),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn own_token(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("token")).expect("it is there").trim().to_owned()
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().expect("nobody panics with it") = answer;
    }

    /// From now on questions are taken and not answered.
    pub(crate) fn hold(&self) {
        self.shared.is_held.send_replace(true);
    }

    pub(crate) fn release(&self) {
        self.shared.is_held.send_replace(false);
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.borrow().clone()
    }

    /// Resolves when a question has come.
    pub(crate) async fn was_asked(&self) {
        let mut asked = self.shared.asked.subscribe();
        asked.wait_for(|asked| !asked.is_empty()).await.expect("the server lives");
    }

    /// Nobody listens any more.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

/// Makes a CA, of which it writes the certificate, and a certificate for 127.0.0.1.
fn certify(folder: &Path) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are right");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    std::fs::write(folder.join("ca.crt"), params.self_signed(&ca_key).expect("it can sign").pem())
        .expect("it can be written");
    let ca = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("it is an address");
    let certificate = params.signed_by(&key, &ca).expect("it can sign");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("they belong together")
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(serve(stream, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let answering = service_fn(|request: Request<Incoming>| answer(request, &shared));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answering).await;
}

async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorization = authorization.unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let question: Value = serde_json::from_slice(&body).map_err(std::io::Error::other)?;
    shared.asked.send_modify(|asked| asked.push((path, authorization, question.clone())));
    let mut held = shared.is_held.subscribe();
    let _ = held.wait_for(|is_held| !is_held).await;
    let said = shared.answer.lock().expect("nobody panics with it").clone();
    let (status, text) = match said {
        Answer::Yes => (201, yes(&question)),
        Answer::No(why) => (201, json!({"status": {"error": why}}).to_string()),
        Answer::Raw(status, text) => (status, text),
        Answer::Cut => return Err(std::io::Error::other("it ends here")),
    };
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(text))).expect("the status is one"))
}

fn yes(question: &Value) -> String {
    let token = question["spec"]["token"].as_str().expect("it asks about a token");
    let claims =
        URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("it has parts")).expect("it is base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("it is JSON");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:shop"];
    json!({"status": {
        "authenticated": true,
        "user": {"username": claims["sub"], "groups": groups},
        "audiences": question["spec"]["audiences"],
    }})
    .to_string()
}
