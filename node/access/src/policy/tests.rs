//! A policy as people write it, and as they write it wrong; and what it decides, beside a decision that is made naively.

use super::*;
use crate::permission::Target;
use proptest::prelude::*;

/// The example of the page, with everything that there is.
const EXAMPLE: &str = r#"
# who may do what
anonymous: true
jwt:
- issuer: https://issuer.example
  audience: raftqueue
  jwksFile: /etc/raftqueue-auth/jwks.json
  groupsClaim: groups
kubernetes:
  audience: raftqueue
roles:
- name: shop
  rules:
  - topics: ["orders", "orders.*"]
    may: [publish, receive, browse]
- name: operations
  rules:
  - topics: ["*"]
    may: [browse, manage]
  - may: [administer]
- name: guest
  rules:
  - {topics: [news], may: [browse]}
grants:
- role: shop
  to: ["token:shop", "serviceaccount:shop/*", "group:payments", "cert:*.shop.example"]
- {role: operations, to: ["jwt:anna", "token:shop-admin"]}
- {role: guest, to: [anonymous, "token:shop-admin"]}
"#;

fn caller(text: &str) -> Caller {
    text.parse().expect(text)
}

#[test]
fn the_example_of_the_page_is_read_as_it_says() {
    let policy = Policy::parse(EXAMPLE).expect("it is right");
    assert!(policy.is_anonymous_known());
    let issuer = &policy.jwt()[0];
    assert_eq!((issuer.name_claim.as_str(), issuer.groups_claim.as_deref()), ("sub", Some("groups")));
    assert_eq!(policy.kubernetes().map(|of| of.audience.as_str()), Some("raftqueue"));
    assert_eq!(policy.roles().iter().map(Role::name).collect::<Vec<_>>(), ["shop", "operations", "guest"]);
    let told: Vec<String> = policy
        .grants()
        .flat_map(|(role, grant)| grant.to().iter().map(move |to| format!("{role} {to}")))
        .collect();
    assert_eq!(told.len(), 8);
    assert_eq!(told[..3], ["shop token:shop", "shop serviceaccount:shop/*", "shop group:payments"]);

    let module = include_str!("../policy.rs");
    let page: String = module
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let page =
        page.split("```").nth(1).and_then(|text| text.strip_prefix("yaml")).expect("it has an example");
    Policy::parse(page).expect("the module's own example is right, too");
}

#[test]
fn who_may_what_and_by_which_role() {
    let policy = Policy::parse(EXAMPLE).expect("it is right");
    let in_group = caller("jwt:ben").in_groups(["staff".into(), "payments".into()]);
    for (caller, permission, topic, role) in [
        (caller("token:shop"), Permission::Publish, Some("orders"), Some("shop")),
        (caller("token:shop"), Permission::Publish, Some("orders.eu"), Some("shop")),
        (caller("token:shop"), Permission::Publish, Some("orders2"), None),
        (caller("token:shop"), Permission::Manage, Some("orders"), None),
        (caller("token:shop"), Permission::Administer, None, None),
        (caller("token:shop"), Permission::Browse, None, None),
        (caller("cert:shop"), Permission::Publish, Some("orders"), None),
        (caller("cert:a.shop.example"), Permission::Receive, Some("orders"), Some("shop")),
        (caller("serviceaccount:shop/worker"), Permission::Receive, Some("orders"), Some("shop")),
        (caller("serviceaccount:shop2/worker"), Permission::Receive, Some("orders"), None),
        (in_group, Permission::Publish, Some("orders"), Some("shop")),
        (caller("token:payments"), Permission::Publish, Some("orders"), None),
        (caller("jwt:anna"), Permission::Manage, Some("whatever"), Some("operations")),
        (caller("jwt:anna"), Permission::Publish, Some("orders"), None),
        (caller("jwt:anna"), Permission::Administer, None, Some("operations")),
        (caller("jwt:anna"), Permission::Administer, Some("orders"), Some("operations")),
        (caller("jwt:anna"), Permission::Browse, None, Some("operations")),
        (caller("anonymous"), Permission::Browse, Some("news"), Some("guest")),
        (caller("anonymous"), Permission::Browse, Some("orders"), None),
        (caller("token:shop-admin"), Permission::Browse, Some("news"), Some("operations")),
        (caller("node"), Permission::Administer, None, Some("node")),
        (caller("node"), Permission::Receive, Some("orders"), Some("node")),
    ] {
        let target = topic.map_or(Target::Cluster, Target::Topic);
        let decision = policy.decide(&caller, permission, target);
        let by = match &decision {
            crate::Decision::Allowed { role } => Some(*role),
            crate::Decision::Denied(_) => None,
        };
        assert_eq!(by, role, "{caller} {permission} {topic:?}");
    }
}

#[test]
fn lists_are_filtered_by_topic() {
    let policy = Policy::parse(EXAMPLE).expect("it is right");
    for (text, may_any, on_news, on_all) in [
        ("token:shop", true, false, false),
        ("anonymous", true, true, false),
        ("token:stranger", false, false, false),
        ("jwt:anna", true, true, true),
        ("node", true, true, true),
    ] {
        let caller = caller(text);
        assert_eq!(policy.may_any(&caller, Permission::Browse).is_allowed(), may_any, "{text}");
        let filter = policy.filter(&caller, Permission::Browse);
        assert_eq!((filter.allows("news"), filter.allows_everything()), (on_news, on_all), "{text}");
    }
}

#[test]
fn a_refusal_says_who_what_and_which_rule_is_missing() {
    let policy = Policy::parse(EXAMPLE).expect("it is right");
    let said = |text: &str, permission, topic: Option<&str>| {
        let target = topic.map_or(Target::Cluster, Target::Topic);
        policy.decide(&caller(text), permission, target).or_denied().expect_err(text).to_string()
    };
    for (said, wanted) in [
        (
            said("token:shop", Permission::Publish, Some("bills")),
            "token:shop may not publish to `bills`: none of its roles (shop) allows it; a rule {topics: [bills], may: \
             [publish]} in one of them would",
        ),
        (
            said("jwt:anna", Permission::Receive, Some("a b")),
            "jwt:anna may not receive from `a b`: none of its roles (operations) allows it; a rule {topics: [\"a b\"], may: \
             [receive]} in one of them would",
        ),
        (
            said("token:shop", Permission::Administer, None),
            "token:shop may not administer the cluster: none of its roles (shop) allows it; a rule {may: [administer]} in \
             one of them would",
        ),
        (
            said("token:shop", Permission::Browse, None),
            "token:shop may not browse every topic: none of its roles (shop) allows it; a rule {topics: [\"*\"], may: \
             [browse]} in one of them would",
        ),
        (
            said("token:stranger", Permission::Manage, Some("orders")),
            "token:stranger may not manage `orders`: no grant gives it a role; a grant {role: ROLE, to: [\"token:stranger\"]} \
             of a role with the rule {topics: [orders], may: [manage]} would allow it",
        ),
        (
            policy
                .may_any(&caller("cert:x"), Permission::Browse)
                .or_denied()
                .expect_err("it has no role")
                .to_string(),
            "cert:x may not browse any topic: no grant gives it a role; a grant {role: ROLE, to: [\"cert:x\"]} of a role with \
             the rule {topics: [TOPIC], may: [browse]} would allow it",
        ),
        (
            said("token:shop-admin", Permission::Publish, Some("x\ny")),
            "token:shop-admin may not publish to `x\\ny`: none of its roles (operations, guest) allows it; a rule {topics: \
             [\"x\\\\ny\"], may: [publish]} in one of them would",
        ),
    ] {
        assert_eq!(said, wanted);
    }
    let open = EXAMPLE.replace("to: [anonymous, ", "to: [").replace("token:shop\"", "token:*\"");
    let policy = Policy::parse(&open).expect("it is right");
    let said = policy.decide(&Caller::anonymous(), Permission::Browse, Target::Topic("news"));
    let said = said.or_denied().expect_err("it has no role").to_string();
    assert!(said.ends_with(" would allow it, or show credentials"), "{said}");
}

#[test]
fn a_refusal_is_not_longer_than_its_roles_can_be_read() {
    let mut text = "roles:\n".to_owned();
    let mut grants = "grants:\n".to_owned();
    for role in 0..9 {
        text += &format!("- {{name: r{role}, rules: [{{topics: [t{role}], may: [browse]}}]}}\n");
        grants += &format!("- {{role: r{role}, to: [\"token:*\"]}}\n");
    }
    let policy = Policy::parse(&(text + &grants)).expect("it is right");
    let said = policy.decide(&caller("token:a"), Permission::Browse, Target::Topic("x")).or_denied();
    let said = said.expect_err("no role has it").to_string();
    assert!(said.contains("none of its roles (r0, r1, r2, r3, r4 and 4 more) allows it"), "{said}");
}

/// A policy that is right, with one thing replaced in it.
fn with(what: &str, by: &str) -> String {
    let right = "roles:\n- name: shop\n  rules:\n  - topics: [orders]\n    may: [publish]\ngrants:\n- role: shop\n  to: [\"token:shop\"]\n";
    assert!(right.contains(what), "{what}");
    Policy::parse(right).expect("it is right");
    right.replacen(what, by, 1)
}

#[test]
fn what_is_wrong_is_named_by_its_line_with_what_would_be_right() {
    let long = "x".repeat(256);
    let mut wrong = Vec::new();
    let issuer = "- {issuer: i, audience: a, jwksFile: f}\n";
    for (text, said) in [
        (String::new(), "there are no `roles`, so nobody could do anything"),
        ("# nothing\n".into(), "there are no `roles`, so nobody could do anything"),
        ("anonymous: true\n".into(), "there are no `roles`, so nobody could do anything"),
        ("[]".into(), "line 1: "),
        ("{".into(), "line "),
        (
            with("roles:", "rolls:"),
            "line 1: there is no `rolls` here; there are `anonymous`, `jwt`, `kubernetes`, `roles` and `grants`; did you mean `roles`?",
        ),
        (
            with("topics:", "topic:"),
            "line 4: there is no `topic` here; there are `topics` and `may`; did you mean `topics`?",
        ),
        (with("    may: [publish]\n", ""), "line 4: `may` is missing"),
        (with("roles:", "anonymous: yes\nroles:"), "line 1: "),
        (with("grants:", "roles: []\ngrants:"), "line 6: `roles` stands here a second time"),
        (
            with("[publish]", "[pubilsh]"),
            "line 5: there is no permission `pubilsh`; there are `publish`, `receive`, `browse`, `manage` and `administer`; did you mean `publish`?",
        ),
        (with("[publish]", "[publish, publish]"), "line 5: `publish` stands here a second time"),
        (with("[publish]", "[]"), "line 5: a rule of the role `shop` allows nothing: `may` is empty"),
        (with("[publish]", "publish"), "line 5: "),
        (
            with("[publish]", "[administer]"),
            "line 4: `administer` is of the cluster and not of topics: in the role `shop` give it a rule of its own, `- may: [administer]`",
        ),
        (
            with("- topics: [orders]\n    may", "- may"),
            "line 4: `publish` is of topics, and this rule of the role `shop` has no `topics`; all of them are [\"*\"]",
        ),
        (with("[orders]", "[]"), "line 4: a rule of the role `shop` has no topics; all of them are [\"*\"]"),
        (with("[orders]", "[\"\"]"), "line 4: a topic must have 1 to 255 bytes"),
        (with("[orders]", &format!("[{long}]")), "line 4: a topic must have 1 to 255 bytes"),
        (with("[orders]", "[*]"), "line 4: a pattern that begins with `*` must be in quotes, as in \"*\""),
        (
            with("[orders]", "[orders, *.eu]"),
            "line 4: a pattern that begins with `*` must be in quotes, as in \"*\"",
        ),
        (with("name: shop", "name: \"\""), "line 2: a role's name must have 1 to 253 bytes"),
        (
            with("  rules:\n  - topics: [orders]\n    may: [publish]\n", "  rules: []\n"),
            "line 3: the role `shop` has no rules, so it would allow nothing",
        ),
        (
            with("grants:", "- name: shop\n  rules: [{topics: [a], may: [browse]}]\ngrants:"),
            "line 6: there are two roles `shop`: put the rules of both into one",
        ),
        (
            with("grants:\n- role: shop\n  to: [\"token:shop\"]\n", ""),
            "there are no `grants`, so nobody would have a role",
        ),
        (
            with("grants:\n- role: shop\n  to: [\"token:shop\"]\n", "grants: []\n"),
            "line 6: `grants` is empty, so nobody would have a role",
        ),
        (
            with("role: shop", "role: shpo"),
            "line 7: there is no role `shpo`; there are `shop`; did you mean `shop`?",
        ),
        (with("- role: shop\n  to", "- to"), "line 7: `role` is missing"),
        (with("[\"token:shop\"]", "[]"), "line 8: this grant gives the role `shop` to nobody: `to` is empty"),
        (
            with("token:shop", "shop"),
            "line 8: `shop` does not say by which means: it must be MEANS:NAME, as in \"token:shop\"",
        ),
        (with("token:shop", "*"), "line 8: `*` does not say by which means"),
        (with("token:shop", "token:"), "line 8: the name behind `token:` must have 1 to 512 bytes"),
        (
            with("token:shop", "tokn:shop"),
            "line 8: there are no means `tokn`; there are `cert`, `token`, `jwt`, `serviceaccount` and `group`; did you mean `token`?",
        ),
        (
            with("token:shop", "node"),
            "line 8: `node` is the cluster itself, which may do everything without a grant",
        ),
        (
            with("token:shop", "anonymous"),
            "line 8: `anonymous` has a role, but whoever shows no credentials is refused: say `anonymous: true`, too",
        ),
        (with("token:shop", "group:a"), "line 8: nobody is in a group: JWTs and ServiceAccounts have them"),
        (
            with("token:shop", "jwt:a"),
            "line 8: no JWT counts here: `jwt` with an issuer is missing in this file",
        ),
        (
            with("token:shop", "serviceaccount:a/b"),
            "line 8: no ServiceAccount counts here: `kubernetes` with an audience is missing in this file",
        ),
        (
            with("token:shop", "serviceaccount:a").replace("roles:", "kubernetes: {audience: q}\nroles:"),
            "line 9: `serviceaccount:a` has no namespace: it is serviceaccount:NAMESPACE/NAME",
        ),
        (with("roles:", "jwt: []\nroles:"), "line 1: `jwt` must list 1 to 16 issuers, or be left out"),
        (
            with("roles:", &format!("jwt:\n{issuer}{issuer}roles:")),
            "line 3: the issuer `i` stands here a second time",
        ),
        (
            with("roles:", "jwt:\n- {issuer: i, audience: \"\", jwksFile: f}\nroles:"),
            "line 2: `audience` must have 1 to 1024 bytes",
        ),
        (
            with("roles:", "jwt:\n- {issuer: i, audience: a, jwksfile: f}\nroles:"),
            "line 2: there is no `jwksfile` here; there are `issuer`, `audience`, `jwksFile`, `nameClaim`, `groupsClaim` and `prefix`; did you mean `jwksFile`?",
        ),
        (with("roles:", "kubernetes: {}\nroles:"), "line 1: `audience` is missing"),
        (with("grants:", "---\ngrants:"), "line "),
        ("#".repeat(FILE_BYTES_MAX + 1), "the file has 1048577 bytes, and may have 1048576"),
    ] {
        let error = Policy::parse(&text).expect_err(said);
        let told = error.to_string();
        if !told.starts_with(said) || told.contains('\n') || told.matches("line ").count() > 1 {
            wrong.push(format!("{told}\n  wanted: {said}"));
        }
        assert_eq!(error.line().is_some(), told.starts_with("line "), "{told}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_of_two_issuers_are_kept_apart() {
    for (one, other, is_right) in [
        ("a/", "b/", true),
        ("", "", false),
        ("a/", "", false),
        ("", "b/", false),
        ("a/", "a/b/", false),
        ("a/", "a/", false),
    ] {
        let issuer = |issuer: &str, prefix: &str| {
            format!("- {{issuer: {issuer}, audience: a, jwksFile: f, prefix: \"{prefix}\"}}\n")
        };
        let text = with("roles:", &format!("jwt:\n{}{}roles:", issuer("i", one), issuer("j", other)));
        match Policy::parse(&text) {
            Ok(policy) => assert!(is_right && policy.jwt()[1].prefix == other, "{one} {other}"),
            Err(error) => {
                let said = "line 3: two issuers could name the same caller: give each a `prefix`";
                assert!(!is_right && error.to_string().starts_with(said), "{one} {other}: {error}");
            }
        }
    }
}

#[test]
fn what_would_take_too_long_to_decide_is_refused() {
    let patterns: Vec<String> = (0..8_193).map(|n| format!("t{n}")).collect();
    let rules = "[{topics: [a], may: [browse]}],".trim_end_matches(',');
    let roles: String = (0..257).map(|n| format!("- {{name: r{n}, rules: {rules}}}\n")).collect();
    let many_rules = "  - {topics: [a], may: [browse]}\n".repeat(4_097);
    let subjects: Vec<String> = (0..8_193).map(|n| format!("\"token:t{n}\"")).collect();
    for (text, said) in [
        (
            with("[orders]", &format!("[{}]", patterns.join(", "))),
            "line 4: all roles together may have 4096 rules with 8192 topics",
        ),
        (with("roles:\n", &format!("roles:\n{roles}")), "line 2: `roles` must list 1 to 256 roles"),
        (
            with("  - topics: [orders]\n    may: [publish]\n", &many_rules),
            "line 4100: all roles together may have 4096 rules",
        ),
        (with("\"token:shop\"", &subjects.join(", ")), "line 8: all grants together may name 8192 callers"),
        (with("[orders]", &("[".repeat(100) + &"]".repeat(100))), "line 4: "),
    ] {
        let told = Policy::parse(&text).expect_err(said).to_string();
        assert!(told.starts_with(said), "{told}");
    }
    // Aliases could make much of little.
    let bomb = with("[orders]", "&a [orders]").replace("grants", "more: *a\ngrants");
    assert!(Policy::parse(&bomb).is_err());
}

#[test]
fn more_callers_than_are_kept_are_all_decided_right() {
    let policy = Policy::parse(EXAMPLE).expect("it is right");
    for _ in 0..2 {
        for n in 0..3 * CALLERS_KEPT_MAX {
            let caller = Caller::named(Means::Certificate, format!("{n}.shop.example"));
            assert!(policy.decide(&caller, Permission::Publish, Target::Topic("orders")).is_allowed());
            let other = Caller::named(Means::Token, format!("{n}"));
            assert!(!policy.decide(&other, Permission::Publish, Target::Topic("orders")).is_allowed());
        }
    }
    assert!(policy.kept.lock().expect("nobody panicked").len() <= CALLERS_KEPT_MAX);
}

/// Rules of one role: patterns of topics, and what they allow on them.
type Rules = Vec<(Vec<String>, Vec<Permission>)>;
/// The position of a role, and who has it.
type Granted = (usize, Vec<String>);

/// A policy of few letters, so that much of it fits: roles with rules, and grants of them.
fn policies() -> impl Strategy<Value = (Vec<Rules>, Vec<Granted>)> {
    let permissions = proptest::sample::subsequence(Permission::OF_TOPICS.to_vec(), 1..=4);
    let rule = (proptest::collection::vec("[ab*]{1,3}", 1..3), permissions);
    let roles = proptest::collection::vec(proptest::collection::vec(rule, 1..3), 1..4);
    let subject =
        prop_oneof!["token:[ab*]{1,2}", "cert:[ab*]{1,2}", "group:[ab*]{1,2}", Just("anonymous".to_owned())];
    let grants = proptest::collection::vec((0_usize..3, proptest::collection::vec(subject, 1..3)), 1..4);
    (roles, grants)
}

/// Whether a name fits a pattern, tried in every way.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|taken| fits(rest, &name[taken..])),
        [letter, rest @ ..] => name.first() == Some(letter) && fits(rest, &name[1..]),
    }
}

proptest! {
    #[test]
    fn a_policy_decides_as_if_every_rule_of_every_grant_was_tried(
        (roles, grants) in policies(),
        by in prop_oneof!["token:[ab]{1,2}", "cert:[ab]{1,2}", Just("anonymous".to_owned())],
        groups in proptest::collection::vec("[ab]{1,2}", 0..3),
        topic in "[ab]{1,3}",
    ) {
        let mut text = "anonymous: true\nkubernetes: {audience: q}\nroles:\n".to_owned();
        for (n, rules) in roles.iter().enumerate() {
            text += &format!("- name: r{n}\n  rules:\n");
            for (topics, may) in rules {
                let may: Vec<_> = may.iter().map(|may| may.word()).collect();
                text += &format!("  - {{topics: {topics:?}, may: {may:?}}}\n");
            }
        }
        text += "grants:\n";
        for (role, to) in &grants {
            text += &format!("- {{role: r{}, to: {to:?}}}\n", role % roles.len());
        }
        let policy = Policy::parse(&text).expect("it is right");
        let caller = caller(&by).in_groups(groups.clone());
        for permission in Permission::OF_TOPICS {
            let is_meant = |to: &String| match to.strip_prefix("group:") {
                Some(group) => groups.iter().any(|own| fits(group.as_bytes(), own.as_bytes())),
                None => fits(to.as_bytes(), by.as_bytes()),
            };
            let may = |topic: &str| grants.iter().any(|(role, to)| {
                to.iter().any(is_meant) && roles[role % roles.len()].iter().any(|(topics, may)| {
                    may.contains(&permission) && topics.iter().any(|of| fits(of.as_bytes(), topic.as_bytes()))
                })
            });
            let wanted = may(&topic);
            prop_assert_eq!(policy.decide(&caller, permission, Target::Topic(&topic)).is_allowed(), wanted);
            let filter = policy.filter(&caller, permission);
            prop_assert_eq!(filter.allows(&topic), wanted);
            // What fits a name that no pattern spells out fits all.
            prop_assert_eq!(filter.allows_everything(), may("→"));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z:\\- \\n\\[\\]{}\"*&]{0,200}") {
        let _ = Policy::parse(&text);
        let _ = crate::Tokens::parse(&text);
        let _ = crate::jwt::Keys::parse(&text);
        let _ = text.parse::<Caller>();
    }
}
