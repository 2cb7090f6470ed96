# One image for the pages, the dispatcher and the workers; which of them a container is, its command says.
FROM python:3.11-slim-bookworm AS build

# mysqlclient comes as source. Its compiler stays in this stage.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev pkg-config libmariadb-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir -r /requirements.txt


FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends libmariadb3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/exportapp --shell /usr/sbin/nologin exportapp \
    && install -d -o exportapp -g exportapp /var/lib/exportapp
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    DJANGO_SETTINGS_MODULE=exportapp.settings \
    EXPORTAPP_VAR=/var/lib/exportapp
WORKDIR /app
COPY . .
# The user below cannot write here, so each start, and each health check, would compile everything anew.
RUN python -m compileall -q exportapp worker

USER exportapp
CMD ["gunicorn", "exportapp.wsgi", "--bind", "0.0.0.0:8000", \
     "--worker-class", "gthread", "--threads", "32", "--no-control-socket"]
