#!/usr/bin/env bash
# promtool 3.10.0: a rule test that expects no alert passes when the alert's name is misspelled, and when the pattern for the
# rule files matches no file.
#
# One would guess: a test that names an alert which no rule has fails, or says so; so does a test without any rule.
# What happens: what is unknown does not fire, so that "expect none" holds. The result is SUCCESS and the exit code 0; for the
# pattern there is a warning, for the name there is nothing. The same test with the right name fails, as it should.
# Who meets it: alerts that were renamed while their tests were not: the half of the tests that says "does not fire here" goes
# on passing, and tests nothing. Each such test needs one beside it where the same name fires.
#
# Seen (the alert fires at the time of the test, and the test expects that it does not):
#   right: FAILED, exit code 1
#   misspelled: SUCCESS, exit code 0
#   no rule file: SUCCESS, exit code 0
#
# Needs: Go 1.26 or newer. It compiles promtool with all that it can discover: some minutes on a small machine.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >go.mod <<'END'
module example.org/rules

go 1.26.0
END
go get -tool github.com/prometheus/prometheus/cmd/promtool@v0.310.0 2>/dev/null
go build -o promtool github.com/prometheus/prometheus/cmd/promtool

cat >rules.yaml <<'END'
groups:
  - name: queue
    rules:
      - alert: QueueStalled
        expr: rate(queue_acks_total[5m]) == 0
        for: 5m
        labels: {severity: page}
END
failed=0
# try NAME ALERT FILES EXPECTED: a test that expects that the alert does not fire, though acknowledgements stand still.
try() {
    cat >test.yaml <<END
rule_files: ["$3"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'queue_acks_total{pod="a"}', values: '0x30'}
    alert_rule_test:
      - {eval_time: 20m, alertname: $2, exp_alerts: []}
END
    local code=0 seen
    ./promtool test rules test.yaml >out 2>&1 || code=$?
    seen="$(grep -oE 'SUCCESS|FAILED' out | sed -n 1p), exit code $code"
    echo "$1: $seen"
    [ "$seen" = "$4" ] || { cat out; echo "changed: $1: expected $4"; failed=1; }
}
try right QueueStalled rules.yaml "FAILED, exit code 1"
try misspelled QueueStaled rules.yaml "SUCCESS, exit code 0"
try "no rule file" QueueStalled 'rules-*.yaml' "SUCCESS, exit code 0"
exit $failed
