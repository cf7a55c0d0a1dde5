# An image with viny and its software; docs/cluster.md says how it is built and run.
# Not built by the project's tests, which check that it names what is there. PyTorch from PyPI brings CUDA along.
FROM python:3.11-slim-bookworm

WORKDIR /opt/viny
COPY pyproject.toml README.md LICENSE ./
COPY envs/constraints.txt envs/constraints.txt
COPY src src
RUN pip install --no-cache-dir -c envs/constraints.txt .
COPY Snakefile config.yaml ./
COPY workflow workflow
COPY envs envs
COPY profiles profiles

# Results, stores and logs go to /work, which the user must be able to write: docker run --user "$(id -u)".
ENV HOME=/tmp USER=viny
USER 1000
WORKDIR /work
ENTRYPOINT ["snakemake", "--snakefile", "/opt/viny/Snakefile"]
CMD ["--cores", "2"]
