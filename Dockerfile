# A model behind HTTP: docker build -t panfpn . && docker run --rm -p 8000:8000 -v "$PWD/keys.txt:/keys.txt:ro" panfpn
# Another model: … -v "$PWD/mine.onnx:/model.onnx:ro" panfpn /model.onnx --host 0.0.0.0 --key-file /keys.txt
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 panfpn
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
# torch's builds without CUDA are a tenth of the size; where that index cannot be reached, the registry's serve too.
ARG TORCH_INDEX=""
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt ".[serve,export]"
USER 1000
WORKDIR /home/panfpn
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8000/ready')"]
ENTRYPOINT ["panfpn", "serve"]
CMD ["--host", "0.0.0.0", "--key-file", "/keys.txt", "--engine", "openvino"]
