# The app on a CPU: docker build --tag robviz . && docker run --rm --publish 7860:7860 --volume robviz:/data robviz
ARG PYTHON=3.12-slim
FROM python:${PYTHON}

# PyTorch's own index of CPU builds makes the image a third as large: --build-arg TORCH_INDEX=... as pytorch.org names it.
ARG TORCH_INDEX=""
WORKDIR /opt/robviz

# The largest layer first: it stays in the build cache while the code changes.
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY robviz ./robviz
COPY checkpoints ./checkpoints
COPY notebooks ./notebooks
RUN pip install --no-cache-dir .

RUN useradd --uid 1000 --create-home visitor && mkdir /data && chown visitor /data
USER visitor
WORKDIR /home/visitor
# Everything that is kept lies in one place: downloaded models, and what matplotlib and gradio write.
ENV ROBVIZ_CACHE=/data/robviz HF_HOME=/data/huggingface MPLCONFIGDIR=/tmp/matplotlib GRADIO_TEMP_DIR=/tmp/gradio \
    OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/health', timeout=4)"
CMD ["robviz", "app", "--host", "0.0.0.0", "--port", "7860", "--max-visitors", "20"]
