# By tag, for building at home: what they stand for changes. The release builds with the digests of its day and publishes
# them (base-images.txt).
ARG BUILDER_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# hadolint ignore=DL3006
FROM ${BUILDER_IMAGE} AS builder
WORKDIR /build
# librdkafka and OpenSSL are built from source: a C/C++ compiler, make and perl are in the image.
COPY Cargo.toml Cargo.lock build.rs ./
COPY src ./src
COPY schemas ./schemas
# Targets that the manifest or cargo would look for; the image holds no tests and no benchmarks.
RUN sed -i '/^\[\[test\]\]/,/^$/d; /^\[\[bench\]\]/,/^$/d' Cargo.toml \
 && cargo build --release --locked --no-default-features --bin kcbq \
 && strip --strip-debug target/release/kcbq

# hadolint ignore=DL3006
FROM ${RUNTIME_IMAGE}
COPY --from=builder /build/target/release/kcbq /usr/local/bin/kcbq
# The image's `nonroot`; a number, so that Kubernetes can tell that it is not root.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/kcbq"]
CMD ["run", "--config", "/etc/kcbq/config.yaml"]
