# syntax=docker/dockerfile:1
#
# docker build -t doorward .
# docker run --rm --stop-timeout 30 -p 8080:8080 -v "$PWD/doorward.toml:/etc/doorward/doorward.toml:ro" \
#     -v doorward:/var/lib/doorward doorward
#
# Without the second volume, the store goes with the container: queued events, too.

# The Debian release of the builder must be that of the runtime image: the binary is linked against its glibc.
FROM rust:1.95-slim-bookworm AS build

# The slim image has gcc and the C headers; jemalloc's build also needs make. The other C code (AWS-LC, SQLite) is
# compiled by cargo itself and needs neither cmake nor clang.
RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*

# jemalloc takes the page size of the build machine, and a binary built for 4 KiB pages aborts on arm64 kernels with
# larger ones. 2^16 runs on all of them. The variable is for this target alone: x86-64 has only one page size.
ENV AARCH64_UNKNOWN_LINUX_GNU_JEMALLOC_SYS_WITH_LG_PAGE=16

WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY config config
COPY src src

# The caches outlive the image, so that a change of the project does not compile its dependencies anew. Each
# architecture has its own target directory, and two builds may not write to it at once. What lies in a cache is not
# part of the image: the binary is copied out in the same step. cargo compares times, and a cached build may be younger
# than the files of an older commit, so the project's own files are made new.
ARG TARGETARCH
# A merged profile of tests/bench/pgo, in one of the folders above, such as config/doorward.profdata; none by default.
ARG PGO_PROFILE
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=doorward-target-${TARGETARCH},sharing=locked \
    find src config -type f -exec touch {} + \
 && RUSTFLAGS="${PGO_PROFILE:+-Cprofile-use=/src/$PGO_PROFILE}" cargo build --release --locked --bin doorward \
 && install -D -m 0755 target/release/doorward /out/doorward \
 && mkdir -p /out/state


# glibc, libgcc and the CA certificates, but no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Doorward" \
      org.opencontainers.image.description="A standalone receiving gateway for webhooks: verifies, deduplicates and delivers." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"

COPY --from=build /out/doorward /usr/local/bin/doorward

# The store's directory belongs to the user below, and so does a new volume that is mounted there.
COPY --from=build --chown=65532:65532 /out/state /var/lib/doorward
# Where the default of store.url, a file in the folder that it is started in, is.
WORKDIR /var/lib/doorward

# Fails the build when the binary needs a library that this image lacks.
RUN ["/usr/local/bin/doorward", "--help"]

# As a number, because Kubernetes cannot tell from a name that a user is not root.
USER 65532:65532

# Webhooks, and the administration's probes and metrics.
EXPOSE 8080 9090

# For Docker; Kubernetes has probes of its own. Whether it lives, not whether it is ready: orchestrators that restart what is
# unhealthy must not do so because a store is out of reach. Nothing is answered before the store is open, which takes
# milliseconds, but long where a damaged file has to be saved.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["/usr/local/bin/doorward", "healthcheck", "--live", "--config", "/etc/doorward/doorward.toml"]

ENTRYPOINT ["/usr/local/bin/doorward"]
CMD ["serve", "--config", "/etc/doorward/doorward.toml"]
