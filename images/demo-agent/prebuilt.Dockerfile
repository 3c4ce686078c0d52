# The demo agent around a binary that is already built, for scripts/test: the context holds only that.
FROM debian:bookworm-slim
COPY streamgate /usr/local/bin/streamgate
USER 10001:10001
WORKDIR /workspace
CMD ["streamgate", "demo-agent"]
