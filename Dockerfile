# The pipeline in a container: 'docker build -t selfadapt .', then 'docker run --name run selfadapt' makes everything.
# 'docker cp run:/home/selfadapt/project/reports .' brings the report out.
FROM python:3.11-slim

# DVC works in a git repository, and everything is started by make. Both are of the release that the image stands on.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

# Code that a model writes is run here: no process of the pipeline is root. The folder is made first, because WORKDIR
# alone may leave it to root.
RUN useradd --create-home --uid 1000 selfadapt \
    && install --directory --owner=selfadapt --group=selfadapt /home/selfadapt/project
USER 1000
WORKDIR /home/selfadapt/project
COPY --chown=1000:1000 . .

# Containers mostly forbid the namespaces that the sandbox would build its walls of. It then keeps its filter of system
# calls and its limits; what must be kept from such code has no place in this container.
ENV SELFADAPT_SANDBOX=limits

# The default index may give a torch with a GPU's libraries, several GB: '--build-arg PIP_EXTRA_INDEX_URL=…' names one
# that has it without. make knows the environment by its whole path.
ARG PIP_EXTRA_INDEX_URL
RUN make "$PWD/.venv/.installed"

CMD ["make", "repro"]
