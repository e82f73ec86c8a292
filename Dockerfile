# syntax=docker/dockerfile:1
#
#   docker build -t octo .                                       octo, for a PostgreSQL of yours
#   docker build -t octo:standalone --target standalone .        octo with a private PostgreSQL, to try it:
#   docker run --rm -p 127.0.0.1:8080:8080 -v octo:/var/lib/octo octo:standalone

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock askama.toml ./
COPY migrations migrations
COPY config config
COPY benches benches
COPY tests tests
COPY src src
# the caches stay on the build machine; only the program goes on
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin octo \
    && install -D target/dist/octo /out/octo

FROM debian:bookworm-slim AS base
# certificates: PostgreSQL over TLS, and postbacks to https
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/octo --shell /usr/sbin/nologin octo \
    && install -d -o octo -g octo -m 0700 /var/lib/octo
COPY --from=build /out/octo /usr/local/bin/octo
COPY config/production.toml /etc/octo/octo.toml
ENV OCTO_SERVER__LISTEN=0.0.0.0:8080 \
    OCTO_SERVER__DATA_DIR=/var/lib/octo \
    OCTO_LOG__FORMAT=json
EXPOSE 8080
VOLUME /var/lib/octo
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["octo", "healthcheck"]
ENTRYPOINT ["octo"]

FROM base AS standalone
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql-common \
    && sed -i -E 's/^#? *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/*
ENV OCTO_LOG__FORMAT=text
USER 10001:10001

FROM base AS octo
# not a flag of one command: `octo healthcheck`, and what is run by hand, must see the same file
ENV OCTO_CONFIG=/etc/octo/octo.toml
USER 10001:10001
