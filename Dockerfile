# The reference project with triggerkit; see docs/deploy.md.
FROM python:3.12-slim

WORKDIR /srv
COPY requirements-serve.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes -r requirements-serve.lock
COPY triggerkit triggerkit
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
COPY app app
COPY tasks tasks
COPY triggerkit.toml .

USER nobody
CMD ["triggerkit", "serve"]
