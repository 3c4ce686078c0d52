# The gateway. `docker build -t streamgate .`; docker-compose.yml does it for you.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin streamgate

FROM debian:bookworm-slim
# Not root: the engine's socket is opened by its group (docker-compose.yml), agents run as this user.
RUN groupadd --gid 10001 streamgate \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/streamgate streamgate \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/streamgate
COPY --from=build /build/target/release/streamgate /usr/local/bin/streamgate
COPY config/production.toml /etc/streamgate/streamgate.toml
# Every command goes by it: `docker compose exec gateway streamgate token create --user ada`.
ENV STREAMGATE_CONFIG=/etc/streamgate/streamgate.toml
USER 10001:10001
WORKDIR /var/lib/streamgate
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["streamgate", "health"]
ENTRYPOINT ["streamgate"]
CMD ["serve"]
