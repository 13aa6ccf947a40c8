# syntax=docker/dockerfile:1
# A CPU image by default. For CUDA: --build-arg TORCH=cu130, or what fits the driver.
# An image that only serves the API, without torch: --build-arg EXTRAS=postgres
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ARG EXTRAS=local,postgres
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/evomerge/bin:$PATH
RUN python -m venv /opt/evomerge
# Alone and first: it is large, changes rarely and comes from its own index.
RUN case ",${EXTRAS}," in \
      *,local,*) pip install --index-url "https://download.pytorch.org/whl/${TORCH}" torch==2.13.0 ;; \
    esac
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --home-dir /data evomerge \
 && install --directory --owner=evomerge --group=evomerge /data
COPY --from=build /opt/evomerge /opt/evomerge
ENV PATH=/opt/evomerge/bin:$PATH PYTHONUNBUFFERED=1 EVOMERGE_DATA_DIR=/data
USER evomerge
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["evomerge"]
# Refuses to start until EVOMERGE_API_KEYS is set, because it binds beyond loopback.
CMD ["serve", "--host", "0.0.0.0"]
