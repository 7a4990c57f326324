//! A policy's file: YAML, then what must be so beyond its form.

use super::{Grant, JwtIssuer, Kubernetes, Policy, PolicyError, Role, Rule, Subject};
use crate::caller::{Means, NAME_BYTES_MAX, named_means};
use crate::pattern::Pattern;
use crate::permission::Permission;
use crate::words::{did_you_mean, listed, shown};
use serde::Deserialize;
use serde_saphyr::{Error, Spanned};
use std::path::PathBuf;

/// Size of the file, in bytes: as much as a ConfigMap holds.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// How many there may be of each: so much a decision may have to look at.
const ISSUERS_MAX: usize = 16;
const ROLES_MAX: usize = 256;
/// Rules of all roles.
const RULES_MAX: usize = 4_096;
/// Patterns of topics of all rules.
const PATTERNS_MAX: usize = 8_192;
/// Whom all grants name.
const SUBJECTS_MAX: usize = 8_192;
/// Length of a pattern of topics, in bytes: as long as a topic's name may be.
const TOPIC_BYTES_MAX: usize = 255;
/// Length of a role's name, in bytes.
const ROLE_BYTES_MAX: usize = 253;
/// Length of an issuer, an audience, a claim, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    anonymous: bool,
    jwt: Option<Spanned<Vec<Issuer>>>,
    kubernetes: Option<OfKubernetes>,
    roles: Option<Spanned<Vec<OneRole>>>,
    grants: Option<Spanned<Vec<OneGrant>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Issuer {
    issuer: Spanned<String>,
    audience: Spanned<String>,
    jwks_file: Spanned<String>,
    name_claim: Option<Spanned<String>>,
    groups_claim: Option<Spanned<String>>,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfKubernetes {
    audience: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneRole {
    name: Spanned<String>,
    rules: Spanned<Vec<Spanned<OneRule>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneRule {
    topics: Option<Spanned<Vec<Spanned<String>>>>,
    may: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneGrant {
    role: Spanned<String>,
    to: Spanned<Vec<Spanned<String>>>,
}

fn line<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line()
}

fn wrong<V, T>(at: &Spanned<V>, text: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError::at(line(at), text))
}

pub(super) fn read(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > FILE_BYTES_MAX {
        let size = text.len();
        return Err(PolicyError::at(0, format!("the file has {size} bytes, and may have {FILE_BYTES_MAX}")));
    }
    let options = serde_saphyr::options! {
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_events: 200_000, max_aliases: 0, max_anchors: 0, max_depth: 16, max_documents: 1 },
    };
    let file: File =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| explained(text, &error))?;
    let jwt = match file.jwt {
        Some(issuers) => issuers_of(&issuers)?,
        None => Vec::new(),
    };
    let kubernetes = match file.kubernetes {
        Some(of) => Some(Kubernetes { audience: text_of("audience", &of.audience)? }),
        None => None,
    };
    let Some(roles) = file.roles else {
        return Err(PolicyError::at(0, "there are no `roles`, so nobody could do anything"));
    };
    let roles = roles_of(&roles)?;
    let Some(grants) = file.grants else {
        return Err(PolicyError::at(0, "there are no `grants`, so nobody would have a role"));
    };
    let known = Known { anonymous: file.anonymous, jwt: !jwt.is_empty(), kubernetes: kubernetes.is_some() };
    let grants = grants_of(&grants, &roles, known)?;
    let kept = Default::default();
    Ok(Policy { is_anonymous_known: file.anonymous, jwt, kubernetes, roles, grants, kept })
}

/// What is wrong with the form, in words of this file.
fn explained(file: &str, error: &Error) -> PolicyError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |location| location.line());
    let is_of_a_star = matches!(
        error,
        Error::UnknownAnchor { .. }
            | Error::ExternalMessage { .. }
            | Error::Budget { .. }
            | Error::Unexpected { .. }
    ) && has_bare_star(file, line);
    let text = match error {
        Error::SerdeUnknownField { field, expected, .. } => format!(
            "there is no `{}` here; there are {}{}",
            shown(field),
            listed(expected.iter().copied()),
            did_you_mean(field, expected.iter().copied())
        ),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{}` stands here a second time", shown(key))
        }
        _ if is_of_a_star => "a pattern that begins with `*` must be in quotes, as in \"*\"".to_owned(),
        Error::Eof { .. } => "the file ends too early, or has nothing in it".to_owned(),
        other => {
            let text = other.render();
            // Its last words are the place, which stands in front already.
            shown(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
        }
    };
    PolicyError::at(line, text)
}

/// Whether a line has a text without quotes that begins with `*`, which is an alias in YAML.
fn has_bare_star(file: &str, line: u64) -> bool {
    let at = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let begins = |before: &str| {
        let before = before.trim_end();
        before.is_empty() || before.ends_with(['[', ',', ':', '-'])
    };
    let line = file.lines().nth(at).unwrap_or_default();
    line.match_indices('*').any(|(star, _)| begins(&line[..star]))
}

fn issuers_of(issuers: &Spanned<Vec<Issuer>>) -> Result<Vec<JwtIssuer>, PolicyError> {
    if issuers.value.is_empty() || issuers.value.len() > ISSUERS_MAX {
        return wrong(issuers, format!("`jwt` must list 1 to {ISSUERS_MAX} issuers, or be left out"));
    }
    let mut all: Vec<JwtIssuer> = Vec::new();
    for one in &issuers.value {
        let optional =
            |what, text: &Option<Spanned<String>>| text.as_ref().map(|text| text_of(what, text)).transpose();
        let issuer = JwtIssuer {
            issuer: text_of("issuer", &one.issuer)?,
            audience: text_of("audience", &one.audience)?,
            jwks_file: PathBuf::from(text_of("jwksFile", &one.jwks_file)?),
            name_claim: optional("nameClaim", &one.name_claim)?.unwrap_or_else(|| "sub".to_owned()),
            groups_claim: optional("groupsClaim", &one.groups_claim)?,
            prefix: one.prefix.clone(),
        };
        if all.iter().any(|other| other.issuer == issuer.issuer) {
            return wrong(
                &one.issuer,
                format!("the issuer `{}` stands here a second time", shown(&issuer.issuer)),
            );
        }
        // Names of one issuer must not be names of another.
        let is_apart = |other: &JwtIssuer| {
            !issuer.prefix.starts_with(&other.prefix) && !other.prefix.starts_with(&issuer.prefix)
        };
        if issuer.prefix.len() > TEXT_BYTES_MAX || !all.iter().all(is_apart) {
            return wrong(
                &one.issuer,
                "two issuers could name the same caller: give each a `prefix` with which no other begins, as `b/`; it stands in \
                 front of its names and groups",
            );
        }
        all.push(issuer);
    }
    Ok(all)
}

fn text_of(what: &str, text: &Spanned<String>) -> Result<String, PolicyError> {
    if text.value.is_empty() || text.value.len() > TEXT_BYTES_MAX {
        return wrong(text, format!("`{what}` must have 1 to {TEXT_BYTES_MAX} bytes"));
    }
    Ok(text.value.clone())
}

fn roles_of(roles: &Spanned<Vec<OneRole>>) -> Result<Vec<Role>, PolicyError> {
    if roles.value.is_empty() || roles.value.len() > ROLES_MAX {
        return wrong(roles, format!("`roles` must list 1 to {ROLES_MAX} roles"));
    }
    let mut all: Vec<Role> = Vec::new();
    let (mut rules_left, mut patterns_left) = (RULES_MAX, PATTERNS_MAX);
    for role in &roles.value {
        let name = &role.name.value;
        if name.is_empty() || name.len() > ROLE_BYTES_MAX || name.chars().any(char::is_control) {
            return wrong(
                &role.name,
                format!("a role's name must have 1 to {ROLE_BYTES_MAX} bytes, all of them printable"),
            );
        }
        if all.iter().any(|other| other.name() == name) {
            return wrong(
                &role.name,
                format!("there are two roles `{name}`: put the rules of both into one"),
            );
        }
        if role.rules.value.is_empty() {
            return wrong(&role.rules, format!("the role `{name}` has no rules, so it would allow nothing"));
        }
        let mut rules = Vec::new();
        for rule in &role.rules.value {
            let rule_checked = rule_of(name, rule)?;
            let counts = (rules_left.checked_sub(1), patterns_left.checked_sub(rule_checked.topics.len()));
            let (Some(rules_after), Some(patterns_after)) = counts else {
                return wrong(
                    rule,
                    format!(
                        "all roles together may have {RULES_MAX} rules with {PATTERNS_MAX} topics, and this is more"
                    ),
                );
            };
            (rules_left, patterns_left) = (rules_after, patterns_after);
            rules.push(rule_checked);
        }
        all.push(Role::new(name.clone(), rules));
    }
    Ok(all)
}

fn rule_of(role: &str, rule: &Spanned<OneRule>) -> Result<Rule, PolicyError> {
    let OneRule { topics, may } = &rule.value;
    if may.value.is_empty() {
        return wrong(may, format!("a rule of the role `{role}` allows nothing: `may` is empty"));
    }
    let mut permissions: Vec<Permission> = Vec::new();
    for word in &may.value {
        let permission = word.value.parse().or_else(|text: String| wrong(word, text))?;
        if permissions.contains(&permission) {
            return wrong(word, format!("`{permission}` stands here a second time"));
        }
        permissions.push(permission);
    }
    let is_of_cluster = permissions.contains(&Permission::Administer);
    let Some(topics) = topics else {
        if permissions == [Permission::Administer] {
            return Ok(Rule { topics: Vec::new(), may: permissions });
        }
        let of_topics = permissions.iter().find(|permission| **permission != Permission::Administer);
        let word = of_topics.map_or("", |permission| permission.word());
        return wrong(
            rule,
            format!(
                "`{word}` is of topics, and this rule of the role `{role}` has no `topics`; all of them are [\"*\"]"
            ),
        );
    };
    if is_of_cluster {
        return wrong(
            topics,
            format!(
                "`administer` is of the cluster and not of topics: in the role `{role}` give it a rule of its own, \
                 `- may: [administer]`"
            ),
        );
    }
    if topics.value.is_empty() {
        return wrong(topics, format!("a rule of the role `{role}` has no topics; all of them are [\"*\"]"));
    }
    let mut patterns = Vec::new();
    for topic in &topics.value {
        if topic.value.is_empty() || topic.value.len() > TOPIC_BYTES_MAX {
            return wrong(
                topic,
                format!("a topic must have 1 to {TOPIC_BYTES_MAX} bytes; all topics are \"*\""),
            );
        }
        patterns.push(Pattern::new(&topic.value));
    }
    Ok(Rule { topics: patterns, may: permissions })
}

/// Which callers there may be, as far as the file says it.
#[derive(Clone, Copy)]
struct Known {
    anonymous: bool,
    jwt: bool,
    kubernetes: bool,
}

fn grants_of(
    grants: &Spanned<Vec<OneGrant>>,
    roles: &[Role],
    known: Known,
) -> Result<Vec<Grant>, PolicyError> {
    if grants.value.is_empty() {
        return wrong(grants, "`grants` is empty, so nobody would have a role");
    }
    let mut all = Vec::new();
    let mut subjects_left = SUBJECTS_MAX;
    for grant in &grants.value {
        let name = &grant.role.value;
        let names = || roles.iter().map(Role::name);
        let Some(role) = names().position(|role| role == name) else {
            // A file may have more roles than anybody wants to read.
            let some: Vec<&str> = names().take(10).collect();
            return wrong(
                &grant.role,
                format!(
                    "there is no role `{}`; there are {}{}",
                    shown(name),
                    listed(some),
                    did_you_mean(name, names())
                ),
            );
        };
        if grant.to.value.is_empty() {
            return wrong(&grant.to, format!("this grant gives the role `{name}` to nobody: `to` is empty"));
        }
        subjects_left = match subjects_left.checked_sub(grant.to.value.len()) {
            Some(left) => left,
            None => return wrong(&grant.to, format!("all grants together may name {SUBJECTS_MAX} callers")),
        };
        let to = grant.to.value.iter().map(|to| subject_of(&to.value, known).or_else(|text| wrong(to, text)));
        all.push(Grant { role, to: to.collect::<Result<_, _>>()? });
    }
    Ok(all)
}

fn subject_of(text: &str, known: Known) -> Result<Subject, String> {
    let right =
        "as in \"token:shop\", \"serviceaccount:shop/*\", \"group:payments\" or \"cert:*.shop.example\"";
    match text {
        "anonymous" if known.anonymous => return Ok(Subject::Anonymous),
        "anonymous" => {
            return Err("`anonymous` has a role, but whoever shows no credentials is refused: say `anonymous: true`, too".into());
        }
        "node" => return Err("`node` is the cluster itself, which may do everything without a grant".into()),
        _ => {}
    }
    let Some((word, pattern)) = text.split_once(':') else {
        return Err(format!("`{}` does not say by which means: it must be MEANS:NAME, {right}", shown(text)));
    };
    if pattern.is_empty() || pattern.len() > NAME_BYTES_MAX {
        return Err(format!(
            "the name behind `{}:` must have 1 to {NAME_BYTES_MAX} bytes, {right}",
            shown(word)
        ));
    }
    if word == "group" {
        if !known.jwt && !known.kubernetes {
            return Err(
                "nobody is in a group: JWTs and ServiceAccounts have them, and there is neither `jwt` nor \
                        `kubernetes` in this file"
                    .into(),
            );
        }
        return Ok(Subject::Group(Pattern::new(pattern)));
    }
    let by = named_means(word)
        .map_err(|text| text.replace(" and `serviceaccount`", ", `serviceaccount` and `group`"))?;
    match by {
        Means::Jwt if !known.jwt => {
            Err("no JWT counts here: `jwt` with an issuer is missing in this file".into())
        }
        Means::ServiceAccount if !known.kubernetes => {
            Err("no ServiceAccount counts here: `kubernetes` with an audience is missing in this file".into())
        }
        Means::ServiceAccount if !pattern.contains(['/', '*']) => {
            Err(format!("`{}` has no namespace: it is serviceaccount:NAMESPACE/NAME", shown(text)))
        }
        by => Ok(Subject::Named(by, Pattern::new(pattern))),
    }
}
