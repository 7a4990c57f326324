#!/usr/bin/env bash
# Debian 12's package of Prometheus (2.42.0+ds-5+deb12u1) is built without the discovery of Kubernetes and of Consul.
#
# One would guess: a distribution's package of Prometheus reads every configuration that the release of this version reads.
# What happens: `kubernetes_sd_configs` is refused with "field kubernetes_sd_configs not found in type config.ScrapeConfig", the
# words for a misspelled key, by `prometheus` as by `promtool check config`. Neither says that something was left out of the
# build, and `--help` and `--version` do not tell either. `consul_sd_configs` is missing in the same way, while that of EC2 is
# there.
# Who meets it: whoever tests a configuration for a cluster on a Debian machine, as CI does, and looks for the typing mistake.
#
# Seen:
#   static: taken
#   file: taken
#   http: taken
#   dns: taken
#   kubernetes: refused as unknown
#   ec2: taken
#   consul: refused as unknown
#
# Needs: apt on Debian 12 (amd64).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq -o APT::Sandbox::User=root download prometheus=2.42.0+ds-5+deb12u1
dpkg-deb --extract prometheus_*.deb unpacked
failed=0
# try NAME EXPECTED CONFIGURATION: whether promtool takes one way to find targets.
try() {
    printf 'scrape_configs:\n  - job_name: one\n    %s\n' "$3" >prometheus.yaml
    local seen=taken
    if ! unpacked/usr/bin/promtool check config prometheus.yaml >out 2>&1; then
        seen="refused"
        grep -q "field $1_sd_configs not found in type config.ScrapeConfig" out && seen="refused as unknown"
    fi
    echo "$1: $seen"
    [ "$seen" = "$2" ] || { cat out; echo "changed: $1: expected $2"; failed=1; }
}
try static taken 'static_configs: [{targets: ["127.0.0.1:9090"]}]'
try file taken 'file_sd_configs: [{files: [targets.json]}]'
try http taken 'http_sd_configs: [{url: "http://127.0.0.1:1/"}]'
try dns taken 'dns_sd_configs: [{names: [a.example.org]}]'
try kubernetes "refused as unknown" 'kubernetes_sd_configs: [{role: pod}]'
try ec2 taken 'ec2_sd_configs: [{region: eu-west-1}]'
try consul "refused as unknown" 'consul_sd_configs: [{server: "127.0.0.1:8500"}]'
exit $failed
