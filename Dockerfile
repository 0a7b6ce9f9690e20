# The reference project with triggerkit: one image for all its processes. See docs/deploy.md.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements-serve.lock requirements-image.lock pyproject.toml README.md LICENSE ./
COPY triggerkit triggerkit
# What builds the wheel, and pip itself, stay in this stage.
RUN python -m venv tools \
    && tools/bin/pip install --no-cache-dir --require-hashes -r requirements-serve.lock \
    && tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist .
RUN python -m venv --without-pip /opt/triggerkit \
    && tools/bin/pip --python /opt/triggerkit/bin/python install --no-cache-dir --require-hashes \
        -r requirements-image.lock \
    && tools/bin/pip --python /opt/triggerkit/bin/python install --no-cache-dir --no-deps dist/*.whl \
    && /opt/triggerkit/bin/python -m compileall -q /opt/triggerkit/lib

FROM python:3.13-slim
# The root file system may be read-only: nothing writes there, and what needs a folder has /tmp.
# libpq has an OpenSSL of its own, which does not know where the system's authorities are.
ENV PATH=/opt/triggerkit/bin:$PATH \
    HOME=/tmp \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin triggerkit
COPY --from=build /opt/triggerkit /opt/triggerkit
WORKDIR /srv
COPY app app
COPY tasks tasks
COPY triggerkit.toml .
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["triggerkit", "serve"]
