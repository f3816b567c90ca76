# syntax=docker/dockerfile:1
# A server in a container. docs/operations.md says how to run it.

FROM rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
# The caches stay on the machine that builds; the binary is taken out of them in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package chargehand-cli \
    && cp target/release/chargehand /usr/local/bin/chargehand

FROM debian:bookworm-slim
# Certificates, for collectors and pages that are reached over TLS; always the newest there are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 7420 --user-group --no-create-home --shell /usr/sbin/nologin chargehand \
    && install --directory --owner chargehand --group chargehand --mode 0700 \
        /var/lib/chargehand /var/lib/chargehand/store \
    && install --directory /etc/chargehand
COPY --from=builder /usr/local/bin/chargehand /usr/local/bin/chargehand

# By number, so that an orchestrator can see that it is not root.
USER 7420:7420
# Where `chargehand.toml` is looked for.
WORKDIR /etc/chargehand
# Within the container everybody is another machine, so the server listens on every address; then it
# does not start before somebody was given a key.
ENV CHARGEHAND_LISTEN=0.0.0.0:7420 \
    CHARGEHAND_STORE=/var/lib/chargehand/store \
    CHARGEHAND_LOG_FORMAT=json
VOLUME /var/lib/chargehand
EXPOSE 7420
# No HEALTHCHECK: `/healthz` and `/readyz` answer without a key, and whoever runs the container asks them.
# Stops as `docker stop` asks: requests finish, spans are sent, stores are closed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/chargehand"]
CMD ["serve"]
