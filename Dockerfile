# CPU: docker build -t matdesinne --build-arg INDEX=<address of PyTorch's index of CPU wheels> .
#      (without INDEX the default build of torch is installed, which brings several GB of CUDA libraries and runs on a CPU too)
# GPU: docker build -t matdesinne:gpu --build-arg DEVICE=gpu .   then: docker run --gpus all matdesinne:gpu ...
ARG DEVICE=cpu

FROM python:3.11-slim AS base
WORKDIR /opt/matdesinne
COPY pyproject.toml constraints.txt README.md LICENSE ./

FROM base AS cpu
ARG INDEX=
RUN pip install --no-cache-dir -c constraints.txt ${INDEX:+--index-url $INDEX} torch

FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install --no-cache-dir -c constraints.txt torch

FROM ${DEVICE}
WORKDIR /opt/matdesinne
COPY conf conf
COPY matdesinne matdesinne
COPY train.py generate.py benchmark.py label.py explore.py design.py ./
RUN pip install --no-cache-dir -c constraints.txt '.[explore]' && useradd --create-home designer
USER designer
WORKDIR /home/designer
CMD ["matdesinne-generate", "target=1.0"]
