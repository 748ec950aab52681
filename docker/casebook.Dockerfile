# Casebook as a container that runs jobs: docker compose run --rm casebook run NAME
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends unixodbc-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --features odbc --bin casebook

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates unixodbc odbc-postgresql libsqliteodbc \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 casebook
COPY --from=build /src/target/release/casebook /usr/local/bin/casebook
USER casebook
WORKDIR /work
ENTRYPOINT ["casebook"]
CMD ["--help"]
