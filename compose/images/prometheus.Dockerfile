# A stand-in for prom/prometheus, where that cannot be pulled.
ARG BASE=python:3.11-slim
FROM ${BASE}
LABEL org.opencontainers.image.description="A stand-in for prom/prometheus"
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus wget >/dev/null && rm -rf /var/lib/apt/lists/* \
 && install -d -o 65534 -g 65534 /prometheus
