//! `raftq auth`: who may do what. Tokens are made, and policies checked and asked, without a cluster.

use crate::failure::Failure;
use crate::output::{Format, Output, Table};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use raftqueue_access::{Caller, Decision, Means, Permission, Policy, Subject, Target, Tokens};
use raftqueue_client::Client;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum AuthCommand {
    /// Make a token, and the line by which a cluster knows it
    #[command(after_help = "\
Examples:
  raftq auth token shop
  raftq auth token shop --out shop.token >> tokens
  raftq auth token shop -o json | jq -r .token

The line goes into the file of --auth-tokens-file. It has the token's hash only; \
the token itself is shown this once. A name may have two lines, so that a token can \
be changed while both count.")]
    Token(NewToken),
    /// Read a file of roles and grants, and show what it says or what is wrong in it
    #[command(after_help = "\
Examples:
  raftq auth check auth.yaml
  raftq auth check auth.yaml --tokens tokens
  raftq auth check auth.yaml -o json | jq 'select(.role == \"shop\")'

Each rule is a line. Behind them, with --tokens, stands who of that file has which \
roles. What is likely a mistake and yet allowed is told as a warning.")]
    Check(Check),
    /// Ask the cluster whether you may do something, or a file whether somebody may
    #[command(
        name = "can-i",
        after_help = "\
Examples:
  raftq auth can-i publish orders
  raftq auth can-i publish orders --file auth.yaml --as token:shop
  raftq auth can-i browse --file auth.yaml --as anonymous
  raftq auth can-i receive bills --file auth.yaml \\
    --as serviceaccount:shop/worker --group payments
  raftq auth can-i administer --file auth.yaml --as jwt:anna

Exit code 0 says that it may, and 1 that it may not; the reason says which rule is \
missing."
    )]
    CanI(CanI),
}

#[derive(Args)]
pub(crate) struct NewToken {
    /// The name of who shows it: it calls as token:NAME
    name: String,
    /// Writes the token into a new file that only you can read, and prints the line alone
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Check {
    /// The file of roles and grants, as --auth-file takes it
    file: PathBuf,
    /// The file of hashed tokens, as --auth-tokens-file takes it
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct CanI {
    /// What to do
    #[arg(value_parser = permissions())]
    permission: Permission,
    /// The topic; without one it is asked whether there is any topic
    topic: Option<String>,
    /// The file of roles and grants to ask
    #[arg(long, value_name = "FILE", requires = "caller")]
    file: Option<PathBuf>,
    /// Who asks, as token:NAME, cert:NAME, jwt:NAME, serviceaccount:NAMESPACE/NAME or anonymous
    #[arg(long = "as", value_name = "CALLER", requires = "file")]
    caller: Option<Caller>,
    /// A group that the caller is in; may be said several times
    #[arg(long = "group", value_name = "GROUP", requires = "caller")]
    groups: Vec<String>,
}

fn permissions() -> impl TypedValueParser<Value = Permission> {
    PossibleValuesParser::new(Permission::ALL.map(Permission::word))
        .try_map(|word| word.parse::<Permission>())
}

impl AuthCommand {
    pub(super) async fn run(
        self,
        connect: impl FnOnce() -> Result<Client, Failure>,
        output: &Output,
    ) -> Result<(), Failure> {
        match self {
            AuthCommand::Token(command) => command.run(output),
            AuthCommand::Check(command) => command.run(output),
            AuthCommand::CanI(command) => command.run(connect, output).await,
        }
    }
}

impl NewToken {
    fn run(self, output: &Output) -> Result<(), Failure> {
        let minted = Tokens::mint(&self.name).map_err(Failure::Usage)?;
        if let Some(file) = &self.out {
            write_secret(file, &minted.token).map_err(|failure| failure.within(file.display()))?;
            let json = json!({"name": self.name, "line": minted.line, "token_file": file});
            return output.say(&minted.line, &json);
        }
        let (token, line) = (minted.token, minted.line);
        match output.format {
            Format::Json => output
                .write(format!("{}\n", json!({"name": self.name, "token": token, "line": line})).as_bytes()),
            Format::Plain => output.write(format!("{token}\t{line}\n").as_bytes()),
            Format::Table => {
                output.write(format!("token  {token}\nline   {line}\n").as_bytes())?;
                eprintln!(
                    "keep the token, it is not shown again; the line goes into the file of --auth-tokens-file"
                );
                Ok(())
            }
        }
    }
}

/// Writes a token into a new file that only its owner can read. One that is there is left as it is: its token may be in use.
fn write_secret(file: &Path, token: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    Ok(file.sync_all()?)
}

/// Reads a file with `parse`; whatever is wrong is said behind its name.
fn read<T, E: ToString>(file: &Path, parse: impl Fn(&str) -> Result<T, E>) -> Result<T, Failure> {
    let within = |failure: Failure| failure.within(file.display());
    let text = fs::read_to_string(file).map_err(|error| within(error.into()))?;
    parse(&text).map_err(|error| within(Failure::Failed(error.to_string())))
}

impl Check {
    fn run(self, output: &Output) -> Result<(), Failure> {
        let policy = read(&self.file, Policy::parse)?;
        let tokens = self.tokens.as_deref().map(|file| read(file, Tokens::parse)).transpose()?;
        output.print(&rules(&policy))?;
        if let Some(tokens) = &tokens {
            if output.format == Format::Table {
                output.write(b"\n")?;
            }
            output.print(&callers(&policy, tokens))?;
        }
        for warning in warnings(&policy, tokens.as_ref()) {
            eprintln!("warning: {warning}");
        }
        Ok(())
    }
}

/// Every rule, with who has it.
fn rules(policy: &Policy) -> Table {
    let mut table = Table::new(&["ROLE", "MAY", "TOPICS", "GRANTED TO"]);
    for role in policy.roles() {
        let to: Vec<String> = granted(policy, role.name()).map(ToString::to_string).collect();
        for rule in role.rules() {
            let may: Vec<&str> = rule.may.iter().map(|may| may.word()).collect();
            let topics: Vec<&str> = rule.topics.iter().map(|topic| topic.as_str()).collect();
            table.add(
                vec![role.name().to_owned(), may.join(", "), topics.join(", "), to.join(", ")],
                json!({"role": role.name(), "may": may, "topics": topics, "to": to}),
            );
        }
    }
    table
}

/// Every caller of the tokens file, with its roles.
fn callers(policy: &Policy, tokens: &Tokens) -> Table {
    let mut table = Table::new(&["CALLER", "TOKENS", "ROLES"]);
    for (name, count) in tokens.names() {
        let caller = Caller::named(Means::Token, name);
        let roles: Vec<&str> = policy.roles_of(&caller).map(|role| role.name()).collect();
        table.add(
            vec![caller.to_string(), count.to_string(), roles.join(", ")],
            json!({"caller": caller.to_string(), "tokens": count, "roles": roles}),
        );
    }
    table
}

/// Whom the grants of a role name.
fn granted<'a>(policy: &'a Policy, role: &'a str) -> impl Iterator<Item = &'a Subject> {
    policy.grants().filter(move |(name, _)| *name == role).flat_map(|(_, grant)| grant.to())
}

/// What is allowed in the files and likely not meant.
fn warnings(policy: &Policy, tokens: Option<&Tokens>) -> Vec<String> {
    let mut warnings = Vec::new();
    for role in policy.roles().iter().filter(|role| granted(policy, role.name()).next().is_none()) {
        warnings.push(format!("the role {} is granted to nobody", role.name()));
    }
    let Some(tokens) = tokens else { return warnings };
    let callers: Vec<Caller> =
        tokens.names().into_iter().map(|(name, _)| Caller::named(Means::Token, name)).collect();
    let subjects: BTreeSet<String> = policy
        .grants()
        .flat_map(|(_, grant)| grant.to())
        .filter(|to| matches!(to, Subject::Named(Means::Token, _)))
        .filter(|to| !callers.iter().any(|caller| to.names(caller)))
        .map(ToString::to_string)
        .collect();
    warnings.extend(subjects.into_iter().map(|to| format!("{to} has a role, and no token is of that name")));
    let without = callers.iter().filter(|caller| policy.roles_of(caller).next().is_none());
    warnings.extend(without.map(|caller| format!("{caller} has a token and no role, so it may do nothing")));
    warnings
}

/// Asks the cluster about whoever asks.
async fn ask_cluster(
    client: &Client,
    permission: Permission,
    topic: &str,
    output: &Output,
) -> Result<(), Failure> {
    let right = client.can_i(permission.word(), topic).await?;
    let json = json!({
        "allowed": right.allowed, "caller": right.caller, "role": right.role, "reason": right.reason
    });
    if !right.allowed {
        if output.format == Format::Json {
            output.say("", &json)?;
        }
        return Err(Failure::Failed(right.reason));
    }
    let by = match &right.role[..] {
        "" => right.reason.clone(),
        role => format!("by the role {role}"),
    };
    output.say(&format!("yes, {} may: {by}", right.caller), &json)
}

impl CanI {
    async fn run(
        self,
        connect: impl FnOnce() -> Result<Client, Failure>,
        output: &Output,
    ) -> Result<(), Failure> {
        let Self { permission, topic, file, caller, groups } = self;
        if permission == Permission::Administer && topic.is_some() {
            return Err(Failure::Usage(
                "administer is of the cluster, not of a topic: leave the topic out".into(),
            ));
        }
        let (Some(file), Some(caller)) = (file, caller) else {
            return ask_cluster(&connect()?, permission, topic.as_deref().unwrap_or_default(), output).await;
        };
        let policy = read(&file, Policy::parse)?;
        let caller = caller.in_groups(groups);
        if caller.by() == Means::Anonymous && !policy.is_anonymous_known() {
            let file = file.display();
            return Err(Failure::Failed(format!(
                "calls without credentials are refused: {file} does not say `anonymous: true`"
            )));
        }
        let decision = match &topic {
            Some(topic) => policy.decide(&caller, permission, Target::Topic(topic)),
            None => policy.may_any(&caller, permission),
        };
        let role = match decision {
            Decision::Allowed { role } => role,
            Decision::Denied(denied) => {
                let reason = denied.to_string();
                if output.format == Format::Json {
                    output.say(
                        "",
                        &json!({"allowed": false, "caller": caller.to_string(), "reason": reason}),
                    )?;
                }
                return Err(Failure::Failed(reason));
            }
        };
        let everywhere = topic.is_none() && policy.filter(&caller, permission).allows_everything();
        let on = match (&topic, permission) {
            (Some(_), _) | (None, Permission::Administer) => "",
            (None, _) if everywhere => " on every topic",
            (None, _) => " on some topics",
        };
        let sentence = format!("yes{on}, by the role {role}");
        output.say(&sentence, &json!({"allowed": true, "caller": caller.to_string(), "role": role}))
    }
}
