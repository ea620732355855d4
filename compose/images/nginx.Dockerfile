# A stand-in for nginx:alpine, where that cannot be pulled.
ARG BASE=python:3.11-slim
FROM ${BASE}
LABEL org.opencontainers.image.description="A stand-in for nginx:alpine"
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light wget >/dev/null && rm -rf /var/lib/apt/lists/*
