# The image of the operator: one static program and nothing else.
#   cargo build --release --target x86_64-unknown-linux-gnu -p raftqueue-operator     with
#   CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
#   docker build -f deploy/operator.Dockerfile -t raftqueue-operator:0.1.0 target/x86_64-unknown-linux-gnu/release
FROM scratch
COPY raftqueue-operator /
USER 65532:65532
ENTRYPOINT ["/raftqueue-operator"]
