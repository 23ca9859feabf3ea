# distill_jax and what it needs; the container's own command is the smoke, as a check.
#     docker build -t distill_jax .                              # EXTRA=cpu
#     docker build -t distill_jax:cuda12 --build-arg EXTRA=cuda12 .
#     docker run --rm distill_jax
# BASE must have Python 3.11 among Debian's packages, for constraints.txt.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

ARG EXTRA=cpu
RUN case "$EXTRA" in \
        cpu | cuda12 | cuda13) ;; \
        *) echo "EXTRA=$EXTRA; wanted: cpu, cuda12 or cuda13" >&2; exit 1 ;; \
    esac
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 distill \
    && install --directory --owner=distill --group=distill /home/distill/distill_jax

USER distill
WORKDIR /home/distill/distill_jax
ENV PATH=/home/distill/venv/bin:$PATH
COPY --chown=distill:distill . .
# The folder of results is there, so that a volume mounted on it belongs to the user.
RUN if [ "$EXTRA" = cpu ]; then what=.; else what=".[$EXTRA]"; fi \
    && python3 -m venv /home/distill/venv \
    && pip install --no-cache-dir -c constraints.txt -e "$what" \
    && mkdir runs

CMD ["python", "-m", "launch.main", "--config=configs/rl.py:smoke", "--workdir=runs/check"]
