# The image of a node: two static programs and nothing else.
#   cargo build --release --target x86_64-unknown-linux-gnu -p raftqueue-node -p raftq     with
#   CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
#   docker build -f deploy/node.Dockerfile -t raftqueue-node:0.1.0 target/x86_64-unknown-linux-gnu/release
FROM scratch
COPY raftqueue-node raftq /
# Everything lies in the root folder, so that `kubectl exec POD -- raftq` finds it.
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/raftqueue-node"]
