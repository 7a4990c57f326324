#!/usr/bin/env bash
# kube-cel 0.8.0 (kube-rs): a rule with `optionalOldSelf: true` gets `oldSelf` as a plain value or null, where Kubernetes
# 1.36 gives an optional: the rules that one accepts, the other refuses.
#
# One would guess: a rule that was tested with `Validator::validate(schema, object, old)` does the same on the API server.
# What happens: a rule as Kubernetes documents it (`oldSelf.hasValue()`, `oldSelf.orValue(0)`) ends in kube-cel in "Unexpected
# type: got 'null', want 'optional_type'" when an object is made, and in "got 'int'" when it is changed. A rule written so that
# kube-cel takes it (`oldSelf == null || ...`) does not compile on the API server.
# Who meets it: operators in Rust that test the rules of their resources without a cluster: a rule that may only be broken by a
# change (a field that is set once, a volume that only grows) needs `optionalOldSelf` to hold when the object is made too.
#
# Seen (replicas: 5; `new` has no old object, the others had 3 and 7):
#   oldSelf.orValue(0) <= self
#     Kubernetes: new: accepted; from 3: accepted; from 7: refused
#     kube-cel:   new: error: ... got 'null', want 'optional_type'; from 3: error: ... got 'int', want 'optional_type'; ...
#   oldSelf == null || oldSelf <= self
#     Kubernetes: does not compile: found no matching overload for '_<=_' applied to '(optional_type(int), int)'
#     kube-cel:   new: accepted; from 3: accepted; from 7: refused
#
# Needs: Rust 1.88 or newer, Go 1.26 or newer. It compiles a part of the API server: some minutes on a small machine.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >rules <<'END'
!oldSelf.hasValue() || oldSelf.value() <= self
oldSelf.orValue(0) <= self
oldSelf == null || oldSelf <= self
END

mkdir kubernetes rust rust/src
cat >kubernetes/go.mod <<'END'
module example.org/rules

go 1.26.0

require k8s.io/apiextensions-apiserver v0.36.3
END
# The API server's own code for such rules.
cat >kubernetes/main.go <<'END'
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/validation/field"
	limits "k8s.io/apiserver/pkg/apis/cel"
)

func replicas(count int64) any { return map[string]any{"replicas": count} }

func main() {
	yes := true
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		rule := apiextensions.ValidationRule{Rule: lines.Text(), OptionalOldSelf: &yes, Message: "refused"}
		structural, err := schema.NewStructural(&apiextensions.JSONSchemaProps{
			Type: "object",
			Properties: map[string]apiextensions.JSONSchemaProps{
				"replicas": {Type: "integer", XValidations: apiextensions.ValidationRules{rule}},
			},
		})
		if err != nil {
			panic(err)
		}
		validator := cel.NewValidator(structural, true, limits.PerCallLimit)
		var seen []string
		for _, old := range []any{nil, replicas(3), replicas(7)} {
			errs, _ := validator.Validate(context.Background(), field.NewPath("object"), structural, replicas(5), old,
				limits.RuntimeCELCostBudget)
			words := "accepted"
			if len(errs) > 0 {
				words = strings.SplitN(errs[0].Detail, "\n", 2)[0]
			}
			seen = append(seen, words)
		}
		fmt.Printf("%s -> new: %s; from 3: %s; from 7: %s\n", rule.Rule, seen[0], seen[1], seen[2])
	}
}
END
cat >rust/Cargo.toml <<'END'
[package]
name = "rules"
version = "0.0.0"
edition = "2024"

[dependencies]
kube-cel = { version = "=0.8.0", default-features = false, features = ["validation"] }
serde_json = "=1.0.145"
END
cat >rust/src/main.rs <<'END'
use kube_cel::Validator;
use serde_json::json;

fn main() {
    for rule in std::io::stdin().lines().map(|line| line.expect("a line")) {
        let rules = json!([{"rule": rule, "optionalOldSelf": true, "message": "refused"}]);
        let schema = json!({
            "type": "object",
            "properties": {"replicas": {"type": "integer", "x-kubernetes-validations": rules}}
        });
        let seen = [None, Some(3), Some(7)].map(|old| {
            let old = old.map(|replicas| json!({"replicas": replicas}));
            match Validator::new().validate(&schema, &json!({"replicas": 5}), old.as_ref()) {
                Ok(()) => "accepted".to_owned(),
                Err(errors) => errors.iter().next().expect("an error").message.clone(),
            }
        });
        println!("{rule} -> new: {}; from 3: {}; from 7: {}", seen[0], seen[1], seen[2]);
    }
}
END
(cd kubernetes && go mod tidy 2>/dev/null && go build -o ../by-kubernetes .)
(cd rust && cargo build -q && cp target/debug/rules ../by-kube-cel)
for name in by-kubernetes by-kube-cel; do
    echo "$name:"
    "./$name" <rules | tee "$name.seen"
done
cat >expected <<'END'
!oldSelf.hasValue() || oldSelf.value() <= self -> new: accepted; from 3: accepted; from 7: refused
oldSelf.orValue(0) <= self -> new: accepted; from 3: accepted; from 7: refused
END
diff expected <(head -n 2 by-kubernetes.seen) || { echo "changed: Kubernetes does otherwise"; exit 1; }
grep -q 'null.*no matching overload.*optional_type' by-kubernetes.seen || { echo "changed: Kubernetes takes null"; exit 1; }
[ "$(grep -c "new: .*got 'null', want 'optional_type'; from 3: .*got 'int', want 'optional_type'" by-kube-cel.seen)" = 2 ] &&
    grep -q 'null.* -> new: accepted; from 3: accepted; from 7: refused$' by-kube-cel.seen || {
    echo "changed: kube-cel does otherwise"
    exit 1
}
