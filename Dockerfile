# `healthgpt serve` in a container, on a CPU or on NVIDIA's GPUs:
#   docker build -t healthgpt .
#   docker build -t healthgpt:cuda --build-arg DEVICE=cuda .
#   docker run --rm -p 127.0.0.1:8000:8000 -e HEALTHGPT_API_KEYS=... healthgpt        (with CUDA: --gpus all)
#   docker run --rm -p 127.0.0.1:8000:8000 -e HEALTHGPT_API_KEYS=... -v ./healthgpt-m3:/models/m3:ro healthgpt --model /models/m3
# Outside of the container nobody reaches a server that listens at its loopback, so it listens everywhere and wants keys.
# A read-only container works: --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build

# cpu or cuda: which of PyTorch's builds; TORCH_INDEX names another one, such as a mirror's.
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/healthgpt
ENV PATH=/opt/healthgpt/bin:$PATH
WORKDIR /build
COPY requirements.txt ./
# torch first and pinned, so that nothing else pulls in another build of it
RUN index=${TORCH_INDEX:-$([ "$DEVICE" = cuda ] || echo https://download.pytorch.org/whl/cpu)} \
    && pip install ${index:+--index-url "$index"} "$(grep '^torch==' requirements.txt)" \
    && pip install -r requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY healthgpt ./healthgpt
COPY taming_transformers ./taming_transformers
RUN pip install --no-deps .

FROM python:${PYTHON}-slim
COPY --from=build /opt/healthgpt /opt/healthgpt
RUN useradd --system --uid 10001 --create-home --home-dir /home/healthgpt healthgpt
ENV PATH=/opt/healthgpt/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba
USER healthgpt
WORKDIR /home/healthgpt
EXPOSE 8000
STOPSIGNAL SIGTERM
# Whether it can go on; whether it takes requests yet is what /ready says.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["healthgpt", "serve", "--host", "0.0.0.0", "--port", "8000"]
