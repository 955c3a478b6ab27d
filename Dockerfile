# CPU: docker build -t matdesinne .
# GPU: docker build -t matdesinne:gpu --build-arg DEVICE=gpu .   then: docker run --gpus all matdesinne:gpu ...
FROM python:3.11-slim

ARG DEVICE=cpu
WORKDIR /opt/matdesinne
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY conf conf
COPY matdesinne matdesinne
COPY train.py generate.py benchmark.py ./

# the index of CPU builds keeps several GB of CUDA libraries out of the image
RUN if [ "$DEVICE" = cpu ]; then \
      pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0+cpu"; \
    fi \
 && pip install --no-cache-dir -c constraints.txt .

RUN useradd --create-home designer
USER designer
WORKDIR /home/designer
CMD ["matdesinne-generate", "target=1.0"]
