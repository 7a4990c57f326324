//! Everything in force: the policy, the tokens and the keys of issuers, by the contents of their files.

use crate::caller::{Caller, Means, NAME_BYTES_MAX};
use crate::decision::{Decision, Denied};
use crate::jwt::{self, JwtError, Keys, Verifier};
use crate::permission::{Permission, Target};
use crate::policy::{self, Policy};
use crate::review::{ApiServer, ReviewError, Reviewer};
use crate::tokens::{self, TokenError, Tokens};
use crate::watched::{Look, Watched};
use crate::words::shown;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// Roles and grants, YAML.
    pub policy: PathBuf,
    /// Static tokens, hashed; `None`: there are none.
    pub tokens: Option<PathBuf>,
}

/// What a call shows of who it is.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The token behind `Bearer `. It counts before everything else; one that is bad is refused, whatever else is shown.
    pub bearer: Option<&'a str>,
    /// The name in a client certificate that was checked against the CA.
    pub certificate: Option<&'a str>,
    /// Whether the certificate is one of the cluster itself.
    pub is_node: bool,
}

/// Why nobody is made of what a call shows. Its text is the answer, as UNAUTHENTICATED.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// It shows nothing.
    #[error(
        "calls without credentials are refused here: show a token, as `authorization: Bearer TOKEN`, or a client certificate"
    )]
    Missing,
    /// It shows something that is not understood.
    #[error("the header `authorization` must be `Bearer TOKEN`{0}")]
    Scheme(&'static str),
    /// A static token.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// A JWT.
    #[error("{0}")]
    Jwt(#[from] JwtError),
    /// A JWT of somebody whose tokens do not count.
    #[error("the token was issued by `{}`, whose tokens do not count here", shown(.0))]
    Issuer(String),
    /// A token of a ServiceAccount.
    #[error("{0}")]
    Review(#[from] ReviewError),
    /// A certificate of nobody.
    #[error(
        "the client certificate names nobody: it needs a DNS name, a URI or a common name of 1 to {NAME_BYTES_MAX} bytes"
    )]
    Certificate,
}

/// Why nothing could be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", .path.display())]
pub struct LoadError {
    path: PathBuf,
    text: String,
}

/// What came of a look at the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether other things are in force than before.
    pub is_reloaded: bool,
    /// What is to be told, each once.
    pub news: Vec<News>,
    /// How many files are broken now, so that the last good ones are in force.
    pub broken: usize,
}

/// What is to be told of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which file.
    pub path: PathBuf,
    /// Whether it is broken.
    pub is_broken: bool,
    /// What became of it, or what is wrong with it.
    pub text: String,
}

/// What is in force, as of one moment.
#[derive(Debug)]
pub struct InForce {
    policy: Arc<Policy>,
    tokens: Option<Arc<Tokens>>,
    verifiers: Vec<Verifier>,
    epoch: u64,
}

/// Who a caller is and what it may do, by files that may change at any time.
#[derive(Debug)]
pub struct Access {
    sources: Mutex<Sources>,
    in_force: RwLock<Arc<InForce>>,
    reviewer: Option<Reviewer>,
}

#[derive(Debug)]
struct Sources {
    policy: Watched<Policy>,
    tokens: Option<Watched<Tokens>>,
    /// By the paths that the policy in force names.
    keys: BTreeMap<PathBuf, Watched<Keys>>,
}

/// What a look at credentials finds without asking anybody.
enum Recognised<'a> {
    Known(Caller),
    /// The API server must be asked.
    Ask {
        reviewer: &'a Reviewer,
        audience: String,
        expires: Option<SystemTime>,
    },
}

impl Access {
    /// Reads the files for the first time. `api` is asked about tokens of ServiceAccounts; `None`: this is no pod.
    ///
    /// # Errors
    /// The first file that is broken, and what is wrong with it. Without them nothing may be served.
    pub fn load(files: &Files, api: Option<ApiServer>) -> Result<Self, LoadError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |text| LoadError { path, text }
        };
        let policy =
            Watched::load(&files.policy, policy::FILE_BYTES_MAX, parse_policy).map_err(at(&files.policy))?;
        let tokens = match &files.tokens {
            Some(path) => Some(Watched::load(path, tokens::FILE_BYTES_MAX, parse_tokens).map_err(at(path))?),
            None => None,
        };
        let keys = missing_keys(policy.good(), &BTreeMap::new(), api.is_some()).map_err(at(&files.policy))?;
        let sources = Sources { policy, tokens, keys };
        let in_force = RwLock::new(Arc::new(sources.in_force(1)));
        Ok(Self { sources: Mutex::new(sources), in_force, reviewer: api.map(Reviewer::new) })
    }

    /// Looks at the files, and puts in force what changed and is right. Reads a few files: not for a thread that serves calls.
    pub fn refresh(&self) -> Outcome {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = sources.look(self.reviewer.is_some());
        if outcome.is_reloaded {
            let next = Arc::new(sources.in_force(self.epoch() + 1));
            *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = next;
        }
        outcome
    }

    /// What is in force now. It stays as it is for whoever holds it.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number that rises with every change of what is in force. A stream that sees another number than before must be
    /// authenticated and decided again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// The caller that credentials show. Only a token of a ServiceAccount may have to wait, for the API server, for at most
    /// 2 seconds; everything else is known at once. Dropping the future is safe.
    ///
    /// # Errors
    /// [`Unauthenticated`] if they show nobody; the caller must show others.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
        now: SystemTime,
    ) -> Result<Caller, Unauthenticated> {
        match self.recognise(credentials, now)? {
            Recognised::Known(caller) => Ok(caller),
            Recognised::Ask { reviewer, audience, expires } => {
                let token = credentials.bearer.unwrap_or_default();
                Ok(Box::pin(reviewer.review(token, &audience, expires, now)).await?)
            }
        }
    }

    /// Whether a caller may do this, by what is in force now.
    ///
    /// # Errors
    /// [`Denied`] if it may not.
    pub fn check(
        &self,
        caller: &Caller,
        permission: Permission,
        target: Target<'_>,
    ) -> Result<(), Box<Denied>> {
        self.in_force().policy.decide(caller, permission, target).or_denied()
    }

    fn recognise(
        &self,
        credentials: Credentials<'_>,
        now: SystemTime,
    ) -> Result<Recognised<'_>, Unauthenticated> {
        let in_force = self.in_force();
        if let Some(token) = credentials.bearer {
            return self.recognise_token(&in_force, token, now);
        }
        if credentials.is_node {
            return Ok(Recognised::Known(Caller::node()));
        }
        if let Some(name) = credentials.certificate {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(Unauthenticated::Certificate);
            }
            return Ok(Recognised::Known(Caller::named(Means::Certificate, name)));
        }
        if in_force.policy.is_anonymous_known() {
            return Ok(Recognised::Known(Caller::anonymous()));
        }
        Err(Unauthenticated::Missing)
    }

    fn recognise_token(
        &self,
        in_force: &InForce,
        token: &str,
        now: SystemTime,
    ) -> Result<Recognised<'_>, Unauthenticated> {
        let known = match &in_force.tokens {
            Some(tokens) => tokens.verify(token),
            None => Err(TokenError::NoFile),
        };
        let unknown = match known {
            Ok(name) => return Ok(Recognised::Known(Caller::named(Means::Token, &**name))),
            Err(unknown) => unknown,
        };
        // Only JWTs have points.
        if !token.contains('.') {
            return Err(unknown.into());
        }
        let peek = jwt::peek(token)?;
        let issuer = peek.issuer.clone().unwrap_or_default();
        if let Some(verifier) = in_force.verifiers.iter().find(|verifier| verifier.issuer() == issuer) {
            return Ok(Recognised::Known(verifier.verify(token, now)?));
        }
        match (in_force.policy.kubernetes(), &self.reviewer) {
            (Some(kubernetes), Some(reviewer)) => {
                // What the token says of itself is enough to refuse it; so whatever cannot count is not asked about.
                let expires = peek.check(&kubernetes.audience, now)?;
                Ok(Recognised::Ask { reviewer, audience: kubernetes.audience.clone(), expires })
            }
            _ => Err(Unauthenticated::Issuer(issuer)),
        }
    }
}

impl InForce {
    /// The policy: for lists, [`Policy::may_any`] and [`Policy::filter`].
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether a caller may do this.
    #[must_use]
    pub fn decide(&self, caller: &Caller, permission: Permission, target: Target<'_>) -> Decision<'_> {
        self.policy.decide(caller, permission, target)
    }

    /// As [`Access::epoch`].
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl<'a> Credentials<'a> {
    /// The token in a header `authorization`.
    ///
    /// # Errors
    /// [`Unauthenticated::Scheme`] if it is of another kind, which must not be taken for no credentials.
    pub fn bearer_of(header: &'a [u8]) -> Result<&'a str, Unauthenticated> {
        let text = std::str::from_utf8(header).map_err(|_| Unauthenticated::Scheme(", in ASCII"))?;
        let Some((scheme, token)) = text.trim().split_once(' ') else {
            return Err(Unauthenticated::Scheme(", with a space between them"));
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Unauthenticated::Scheme(": names with passwords and other ways do not count here"));
        }
        Ok(token.trim_start())
    }
}

/// The token is not shown.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("has_bearer", &self.bearer.is_some())
            .field("certificate", &self.certificate)
            .field("is_node", &self.is_node)
            .finish()
    }
}

impl Unauthenticated {
    /// Whether the same credentials may count a little later, as nobody could be asked about them: rather UNAVAILABLE than
    /// UNAUTHENTICATED.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Unauthenticated::Review(error) if error.is_temporary())
    }
}

impl Sources {
    fn in_force(&self, epoch: u64) -> InForce {
        let policy = Arc::clone(self.policy.good());
        let verifier = |issuer: &policy::JwtIssuer| {
            let keys = self.keys.get(&issuer.jwks_file).map(|keys| Arc::clone(keys.good()));
            keys.map(|keys| Verifier::new(issuer.clone(), keys))
        };
        let verifiers = policy.jwt().iter().filter_map(verifier).collect();
        InForce {
            policy,
            tokens: self.tokens.as_ref().map(|tokens| Arc::clone(tokens.good())),
            verifiers,
            epoch,
        }
    }

    fn look(&mut self, is_in_kubernetes: bool) -> Outcome {
        let mut outcome = Outcome::default();
        if let Some(tokens) = &mut self.tokens {
            look_at(tokens, &mut outcome);
        }
        for keys in self.keys.values_mut() {
            look_at(keys, &mut outcome);
        }
        // A policy counts only with the keys that it names.
        let look = match self.policy.look() {
            Look::New(policy, hash) => match missing_keys(&policy, &self.keys, is_in_kubernetes) {
                Ok(missing) => {
                    self.keys.retain(|path, _| policy.jwt().iter().any(|issuer| issuer.jwks_file == *path));
                    self.keys.extend(missing);
                    Look::New(policy, hash)
                }
                Err(why) => Look::Broken(why),
            },
            other => other,
        };
        settle(&mut self.policy, look, &mut outcome);
        let others = self.keys.values().map(Watched::is_broken);
        let tokens = self.tokens.iter().map(Watched::is_broken);
        outcome.broken =
            others.chain(tokens).chain([self.policy.is_broken()]).filter(|is_broken| *is_broken).count();
        outcome
    }
}

fn look_at<T>(file: &mut Watched<T>, outcome: &mut Outcome) {
    let look = file.look();
    settle(file, look, outcome);
}

/// Does what a look at a file calls for, and notes what is to be told of it.
fn settle<T>(file: &mut Watched<T>, look: Look<T>, outcome: &mut Outcome) {
    let path = file.path().to_owned();
    let (is_broken, text) = match look {
        Look::Same if file.mended() => (false, "it is again what is in force".to_owned()),
        Look::Same => return,
        Look::New(new, hash) => {
            file.accept(new, hash);
            outcome.is_reloaded = true;
            (false, "it changed, and is in force".to_owned())
        }
        Look::Broken(why) if file.refuse(&why) => {
            (true, format!("{why}; what it said before stays in force"))
        }
        Look::Broken(_) => return,
    };
    outcome.news.push(News { path, is_broken, text });
}

/// The keys that a policy names and that are not held yet, from their files.
fn missing_keys(
    policy: &Policy,
    held: &BTreeMap<PathBuf, Watched<Keys>>,
    is_in_kubernetes: bool,
) -> Result<BTreeMap<PathBuf, Watched<Keys>>, String> {
    if policy.kubernetes().is_some() && !is_in_kubernetes {
        return Err("`kubernetes` has the API server asked about tokens, and this node does not run in Kubernetes: leave it out".into());
    }
    let mut missing = BTreeMap::new();
    let paths = policy.jwt().iter().map(|issuer| &issuer.jwks_file);
    for path in paths.filter(|path| !held.contains_key(*path)) {
        let keys = Watched::load(path, jwt::KEYS_BYTES_MAX, parse_keys);
        missing.insert(path.clone(), keys.map_err(|why| format!("jwksFile {}: {why}", path.display()))?);
    }
    Ok(missing)
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    Policy::parse(text).map_err(|error| error.to_string())
}

fn parse_tokens(text: &str) -> Result<Tokens, String> {
    Tokens::parse(text).map_err(|error| error.to_string())
}

fn parse_keys(text: &str) -> Result<Keys, String> {
    Keys::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
